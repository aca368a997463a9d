package soak

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// sample is what a server takes at one moment.
type sample struct {
	goroutines int
	heap       int64 // bytes, after collections
	pss        int64 // bytes of memory of all its processes, what they share divided
	processes  int
	old        int // processes of configurations that have been replaced

	// Servers of replaced configurations that wait for their connections to end, in the
	// process that does the work.
	oldH2, oldH3 int // of HTTP/1.1 and HTTP/2; of HTTP/3

	profile string // of the goroutines
}

var (
	goroutineCount = regexp.MustCompile(`(?m)^(\d+) @ `)
	heapAlloc      = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)
)

// sampleCaddy asks Caddy's admin endpoint and the system.
func sampleCaddy(c *e2etest.Caddy) (sample, error) {
	s := sample{processes: 1}
	for range 3 { // what is in a sync.Pool, or has a finalizer, survives a collection or two
		profile, err := c.AdminGet("/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return s, err
		}
		found := heapAlloc.FindStringSubmatch(profile)
		if found == nil {
			return s, errors.New("the profile of the heap does not say HeapAlloc")
		}
		if s.heap, err = strconv.ParseInt(found[1], 10, 64); err != nil {
			return s, err
		}
	}
	profile, err := c.AdminGet("/debug/pprof/goroutine?debug=1")
	if err != nil {
		return s, err
	}
	s.profile = profile
	s.goroutines = goroutines(profile, "")
	s.oldH2 = goroutines(profile, "net/http.(*Server).Shutdown")
	s.oldH3 = goroutines(profile, "http3.(*Server).Shutdown")
	s.pss = pss(c.PID())
	return s, nil
}

// goroutines adds up those of a profile that are in a function. certmagic keeps one for some
// seconds after it has written a file; these are left out.
func goroutines(profile, in string) int {
	total := 0
	for stack := range strings.SplitSeq(profile, "\n\n") {
		if found := goroutineCount.FindStringSubmatch(stack); found != nil && strings.Contains(stack, in) && !strings.Contains(stack, "keepLockfileFresh") {
			n, _ := strconv.Atoi(found[1])
			total += n
		}
	}
	return total
}

// pss returns the proportional set size of a process; 0 where there is no /proc.
func pss(pid int) int64 {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == "Pss:" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// children returns the processes that a process has started.
func children(pid int) []int {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(list)) {
		if n, err := strconv.Atoi(field); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}
