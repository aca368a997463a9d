// Package natsbroker joins the nodes of a gateway over NATS: core NATS, at most once,
// nothing is stored there.
//
// A gateway's messages are on the subjects <Prefix>.<gateway>.>, which is what the
// node's user must be allowed to publish and to subscribe to. In the gateway's name
// what is not of A-Z, a-z, 0-9, _ and - is written as % and two hexadecimal digits for
// each byte.
package natsbroker
