package gateway

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

// originRules decide which Origin headers pass.
type originRules struct {
	any, null, require bool
	exact              map[string]bool
	below              []originPattern // https://*.example.com
}

// originPattern matches origins with this scheme and port, and a host that ends
// with suffix, which begins with a dot.
type originPattern struct{ scheme, suffix, port string }

func parseOrigins(entries []string) (originRules, error) {
	rules := originRules{exact: make(map[string]bool)}
	for _, entry := range entries {
		switch entry {
		case "*":
			rules.any = true
			continue
		case "null":
			rules.null = true
			continue
		case "require":
			rules.require = true
			continue
		}
		scheme, host, port, err := splitOrigin(entry)
		if err != nil {
			return rules, fmt.Errorf("origin %q: %w; allowed are https://example.com, https://*.example.com (with :port if it is not the scheme's), *, null and require", entry, err)
		}
		wildcard, below := strings.CutPrefix(host, "*")
		switch {
		case scheme == "ws" || scheme == "wss":
			return rules, fmt.Errorf("origin %q: a page's origin begins with http or https, whatever its sockets begin with", entry)
		case strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }):
			return rules, fmt.Errorf("origin %q: browsers send the host in its ASCII form, as in https://xn--bcher-kva.example", entry)
		case !below && !strings.Contains(host, "*"):
			rules.exact[scheme+"://"+net.JoinHostPort(host, port)] = true
		case below && strings.HasPrefix(wildcard, ".") && len(wildcard) > 1 && !strings.Contains(wildcard, "*"):
			rules.below = append(rules.below, originPattern{scheme, wildcard, port})
		default:
			return rules, fmt.Errorf("origin %q: * stands only for what comes before a domain, as in https://*.example.com", entry)
		}
	}
	return rules, nil
}

// allow tells whether the request may pass; why says what stopped it.
func (o *originRules) allow(r *http.Request) (why string, ok bool) {
	values := r.Header.Values("Origin")
	switch {
	case len(values) == 0:
		if o.require {
			return "the request has no Origin and the endpoint requires one", false
		}
		return "", true
	case len(values) > 1:
		return "the request has more than one Origin", false
	case o.any:
		return "", true
	case values[0] == "null":
		if o.null {
			return "", true
		}
		return "the page has no origin of its own (Origin: null)", false
	}
	scheme, host, port, err := splitOrigin(values[0])
	if err != nil {
		return "the Origin is malformed: " + err.Error(), false
	}
	if len(o.exact)+len(o.below) == 0 && !o.null {
		if host == hostName(r.Host) && (scheme == "http" || scheme == "https") {
			return "", true
		}
		return "the Origin is another host than the request's", false
	}
	if o.exact[scheme+"://"+net.JoinHostPort(host, port)] {
		return "", true
	}
	for _, p := range o.below {
		if p.scheme == scheme && p.port == port && strings.HasSuffix(host, p.suffix) && len(host) > len(p.suffix) {
			return "", true
		}
	}
	return "the Origin is not among those that are allowed", false
}

// splitOrigin takes apart a serialized origin (RFC 6454 section 6.2), in lower
// case and with the port of http and https filled in.
func splitOrigin(s string) (scheme, host, port string, err error) {
	u, err := url.Parse(asciiLower(s))
	if err != nil {
		return "", "", "", fmt.Errorf("not a URL: %w", err)
	}
	if u.Scheme == "" || u.Host == "" || u.Hostname() == "" {
		return "", "", "", fmt.Errorf("no scheme or no host")
	}
	if u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return "", "", "", fmt.Errorf("more than scheme, host and port")
	}
	port = u.Port()
	if port == "" {
		switch u.Scheme {
		case "http":
			port = "80"
		case "https":
			port = "443"
		}
	}
	return u.Scheme, u.Hostname(), port, nil
}

// asciiLower is strings.ToLower for ASCII alone: there are other letters whose
// lower case is an ASCII one, and a host name with those is another host.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}

// hostName returns the host of a Host header without port and brackets.
func hostName(hostport string) string {
	host := asciiLower(hostport)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}
