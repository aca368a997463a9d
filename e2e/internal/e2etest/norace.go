//go:build !race

package e2etest

// raceEnabled makes Binary build the command as the test itself was built.
const raceEnabled = false
