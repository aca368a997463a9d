package gateway

// outgoing is a message on its way to one client or many. It is framed, and
// compressed, once for each kind of connection.
type outgoing struct {
	message  Message
	plain    []byte
	deflated []byte
	level    int // of deflated; endpoints of one gateway rarely differ in it
}

// frameFor returns the message as a frame for c.
func (m *outgoing) frameFor(c *Client, o *EndpointOptions) []byte {
	level := o.Compression.Level
	if !c.deflate || level == 0 || int64(len(m.message.Data)) < o.Compression.MinSize {
		return m.plainFrame()
	}
	if m.level != level {
		m.deflated, m.level = m.deflatedFrame(level), level
	}
	return m.deflated
}

func (m *outgoing) plainFrame() []byte {
	if m.plain == nil {
		m.plain = newFrame(byte(m.message.Type), m.message.Data)
	}
	return m.plain
}

// deflatedFrame returns the compressed frame, or the plain one if compression
// does not make it smaller.
func (m *outgoing) deflatedFrame(level int) []byte {
	payload, err := deflate(m.message.Data, level)
	if err != nil || len(payload) >= len(m.message.Data) {
		return m.plainFrame()
	}
	return newFrame(byte(m.message.Type)|bitRSV1, payload)
}
