package natsbroker

// maxPrefix bounds Options.Prefix, in bytes: with the longest name of a gateway a
// subject still is well below the 4096 bytes that a line of the protocol may have.
const maxPrefix = 128

// encodeName makes one token of a subject of any name: what is not of A-Z, a-z, 0-9, _
// and - becomes % and two digits for each byte. Different names are different tokens.
func encodeName(name string) string {
	const digits = "0123456789ABCDEF"
	token := make([]byte, 0, len(name))
	for i := range len(name) {
		if c := name[i]; isPlain(c) {
			token = append(token, c)
		} else {
			token = append(token, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(token)
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
