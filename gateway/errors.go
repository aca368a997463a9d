package gateway

import "errors"

var (
	// ErrClosed is returned for a client that is closing or gone.
	ErrClosed = errors.New("client is closed")

	// ErrTooBig is returned for a message that is larger than a client's whole
	// send buffer: it could never be sent.
	ErrTooBig = errors.New("message is larger than the send buffer")

	// ErrQueueFull is returned when the send buffer is full and the endpoint's
	// policy drops the message or closes the client for it.
	ErrQueueFull = errors.New("send buffer is full")

	// ErrForwarded is returned for a client that is connected to a backend: what it
	// is sent is the backend's business.
	ErrForwarded = errors.New("client is connected to a backend")

	// ErrNotUTF8 is returned for a text message, a close reason or a name that
	// is not valid UTF-8.
	ErrNotUTF8 = errors.New("not valid UTF-8")

	// ErrEmptyTarget is returned for a Target that names nobody. An empty target
	// is never taken for everybody.
	ErrEmptyTarget = errors.New("empty target: name all, or clients, users or groups")

	// ErrLocalOnly is returned for a command that was done for clients of this node, but
	// could not be told to others: the broker cannot be reached, or takes no more. Logic
	// that returns it from OnMessage does not fail.
	ErrLocalOnly = errors.New("done on this node only")

	// ErrUnknownClient is returned for the id of a client that is not connected.
	ErrUnknownClient = errors.New("no such client is connected")

	// ErrUnknownNode is returned for a node that is not known, see Nodes.
	ErrUnknownNode = errors.New("no such node is known")

	// ErrNoAnswer is returned when a node did not answer in time.
	ErrNoAnswer = errors.New("a node did not answer in time")

	// ErrShutdown is returned by a gateway that has been shut down.
	ErrShutdown = errors.New("gateway is shut down")
)

// Failure returns what of a command's error is a failure, or nil. ErrLocalOnly is none:
// the command was done here, and the log says that this node is on its own.
func Failure(err error) error {
	if !errors.Is(err, ErrLocalOnly) {
		return err
	}
	several, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	errs := several.Unwrap()
	if errs[0] == ErrLocalOnly { //nolint:errorlint // what follows it is the reason
		return nil
	}
	failures := make([]error, len(errs))
	for i, e := range errs {
		failures[i] = Failure(e)
	}
	return errors.Join(failures...)
}
