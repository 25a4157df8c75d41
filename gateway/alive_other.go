//go:build !unix

package gateway

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"
)

// alive tells whether an idle connection is open and silent. Here it has to
// wait for a moment to find out.
func alive(c net.Conn) bool {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return false
	}
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}
