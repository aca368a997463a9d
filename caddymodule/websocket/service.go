package websocket

import (
	"bytes"
	"fmt"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// endpointKey names an endpoint in a configuration.
type endpointKey struct{ gateway, name string }

// service is what a handler gives its handshakes to.
type service struct {
	endpoint *gateway.Endpoint
	proxy    *proxy // nil unless a backend answers
}

// published is a service and what it was made from.
type published struct {
	*service
	config []byte
	where  string
}

// service returns what serves the endpoint of this name. Handlers that come from one line of
// a Caddyfile are several instances with the same configuration: they share the
// endpoint, which is built once. where says in errors what the handler belongs
// to.
func (a *App) service(key endpointKey, config []byte, where string, build func() (*service, error)) (*service, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := a.share(key.gateway)
	if err != nil {
		return nil, err
	}
	if p := a.endpoints[key]; p != nil {
		if !bytes.Equal(p.config, config) {
			return nil, fmt.Errorf("endpoint %q of gateway %q is configured twice, differently, in %s and in %s: give one of them a name of its own with the option name",
				key.name, key.gateway, p.where, where)
		}
		return p.service, nil
	}
	built, err := build()
	if err != nil {
		return nil, err
	}
	if err := s.generation.Add(built.endpoint); err != nil {
		return nil, err
	}
	a.endpoints[key] = &published{built, config, where}
	return built, nil
}

// elsewhere returns the names of endpoints that belong to other gateways than this.
func (a *App) elsewhere(gateway string) (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.endpoints {
		if key.gateway != gateway {
			names = append(names, key.name)
		}
	}
	return names
}
