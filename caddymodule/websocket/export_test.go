package websocket

// IsInternal is isInternal, for tests.
var IsInternal = isInternal

// References returns how many configurations hold a gateway, 0 if there is none.
func References(gateway string) int {
	n, exists := pool.References(gateway)
	if !exists {
		return 0
	}
	return n
}
