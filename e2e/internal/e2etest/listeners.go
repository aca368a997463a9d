package e2etest

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Listeners returns the TCP addresses that Caddy listens on, sorted. It reads them from
// the system and not from the configuration, so it works where there is a /proc; on
// other systems the test is skipped.
func (c *Caddy) Listeners() []string {
	c.t.Helper()
	if runtime.GOOS != "linux" {
		c.t.Skip("asking the system who listens needs Linux's /proc")
	}
	return c.listeners()
}

// listeners is Listeners, and empty on other systems.
func (c *Caddy) listeners() []string {
	c.t.Helper()
	if runtime.GOOS != "linux" {
		return nil
	}
	proc := fmt.Sprintf("/proc/%d", c.cmd.Process.Pid)
	sockets := make(map[string]bool)
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var found []string
	for _, table := range []string{"tcp", "tcp6"} {
		content, err := os.ReadFile(filepath.Join(proc, "net", table))
		if err != nil {
			continue // no IPv6 here
		}
		for line := range strings.Lines(string(content)) {
			// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
			const local, state, inode, listening = 1, 3, 9, "0A"
			fields := strings.Fields(line)
			if len(fields) <= inode || fields[state] != listening || !sockets[fields[inode]] {
				continue
			}
			addr, err := procAddress(fields[local])
			if err != nil {
				c.t.Fatal(err)
			}
			found = append(found, addr)
		}
	}
	slices.Sort(found)
	return found
}

// procAddress reads an address as /proc/net/tcp writes it: words of four bytes in the
// machine's order, which is little-endian wherever these tests run, and the port.
func procAddress(s string) (string, error) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host + port)
	if err != nil || len(raw) < 6 {
		return "", fmt.Errorf("reading the address %q: %w", s, err)
	}
	ip := raw[:len(raw)-2]
	for word := range slices.Chunk(ip, 4) {
		slices.Reverse(word)
	}
	addr, _ := netip.AddrFromSlice(ip) // 4 or 16 bytes
	return netip.AddrPortFrom(addr, uint16(raw[len(raw)-2])<<8|uint16(raw[len(raw)-1])).String(), nil
}
