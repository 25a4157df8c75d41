//go:build unix

package gateway

import (
	"crypto/tls"
	"net"
	"syscall"
)

// alive tells whether an idle connection is open and silent, without waiting.
// A server that closed it, or says something that nobody asked for, is not to be
// sent a request on it.
func alive(c net.Conn) bool {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, err := syscall.Read(int(fd), b[:])
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && quiet
}
