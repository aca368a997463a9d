package load

import "sync"

// Listen answers the pings of idle connections until the function that it returns is called,
// which cuts them.
func Listen(conns []*Conn) (stop func()) {
	var ended sync.WaitGroup
	for _, c := range conns {
		ended.Go(func() {
			for {
				if _, err := c.receive(); err != nil {
					return // cut, or the server has had enough: it is missed elsewhere
				}
			}
		})
	}
	return func() {
		CloseAll(conns)
		ended.Wait()
	}
}
