package gateway

import (
	"net/netip"
	"sync"
)

// admission counts the connections of an endpoint, from before OnConnect until
// the socket is closed.
type admission struct {
	mu    sync.Mutex
	total int                  // guarded by mu
	perIP map[netip.Prefix]int // guarded by mu; no entry is 0
}

// refusal says which limit was reached.
type refusal uint8

const (
	admitted refusal = iota
	endpointFull
	ipFull
)

// admit counts a connection unless a limit (0 is none) has been reached.
func (a *admission) admit(ip netip.Prefix, most, mostPerIP int) refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	if most > 0 && a.total >= most {
		return endpointFull
	}
	if ip.IsValid() {
		if mostPerIP > 0 && a.perIP[ip] >= mostPerIP {
			return ipFull
		}
		if a.perIP == nil {
			a.perIP = make(map[netip.Prefix]int)
		}
		a.perIP[ip]++
	}
	a.total++
	return admitted
}

// release undoes admit.
func (a *admission) release(ip netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	if !ip.IsValid() {
		return
	}
	a.perIP[ip]--
	if a.perIP[ip] == 0 {
		delete(a.perIP, ip)
	}
}

func (a *admission) empty() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total == 0
}

// limitKey returns what counts as one address: an IPv4 address, or the /64 of an
// IPv6 address, which is what one subscriber gets (RFC 6177). It is invalid for
// what is not an address.
func limitKey(ip string) netip.Prefix {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.Prefix(bits) // cannot fail: bits fit the family
	return prefix
}
