// Package e2etest runs what users run: the caddy command, xcaddy and a browser.
//
// Everything listens on loopback and on ports that were reserved for the test.
// A missing tool skips the test that needs it, with a line that says so, unless
// CI=true: there it fails the test. The package needs a Unix system.
package e2etest
