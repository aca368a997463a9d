package gateway

// Reach is how many clients a command came to, or a count found, on all nodes that
// answered.
type Reach struct {
	Clients int `json:"clients"`

	// Missing are nodes that did not answer in time, sorted. What they did, or have, is
	// not known.
	Missing []string `json:"missing,omitempty"`

	// LocalOnly is set if other nodes are meant, and could not be told or asked since the
	// broker cannot be reached.
	LocalOnly bool `json:"local_only,omitempty"`
}
