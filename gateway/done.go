package gateway

// Done is closed when Shutdown is through: nobody is connected any more, and
// nobody will be.
func (g *Gateway) Done() <-chan struct{} { return g.drained }
