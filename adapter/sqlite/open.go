package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/semelhq/semel/store/batch"
)

// Open opens the file at path, or makes one that only this user may read. Its
// directory must exist. A file of another application, of a newer Semel, or one
// that is damaged is refused with an error that says so, and is not changed.
func Open(path string, o Options) (*Store, error) {
	path, err := settle(path, o.ReadOnly)
	if err != nil {
		return nil, err
	}
	o = o.filled()
	f := &file{path: path, options: o, now: o.Now, readers: make(chan *reader, o.Readers), maxRow: maxRow}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	s := &Store{file: f}
	if !o.ReadOnly {
		s.batch = batch.New(f, o.Batch)
	}
	return s, nil
}

// smallestFile is SQLite's smallest page, in bytes.
const smallestFile = 512

// maxRow is SQLITE_MAX_LENGTH, in bytes.
const maxRow = 1_000_000_000

// settle makes path absolute and looks at what is there, before SQLite does.
// It never opens a file that exists: closing it would drop the locks that this
// process has on it.
func settle(path string, readOnly bool) (string, error) {
	fail := func(advice string, err error) (string, error) {
		return "", fmt.Errorf("sqlite: cannot open %q: %s%w", path, advice, err)
	}
	switch {
	case path == "" || strings.HasPrefix(path, ":memory:"):
		return fail("", errors.New("a path to a file is wanted; for records that may be forgotten take the memory store"))
	case strings.ContainsRune(path, 0):
		return fail("", errors.New("the path has a NUL in it"))
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return fail("", err)
	}
	info, err := os.Stat(whole)
	switch {
	case errors.Is(err, fs.ErrNotExist) && readOnly:
		return fail("to read there must be a file; the gateway makes it at its first start: ", err)
	case errors.Is(err, fs.ErrNotExist):
		// Only the owner may read results. The file is ours alone at this moment.
		made, err := os.OpenFile(whole, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return whole, nil // another process was quicker
		}
		if err != nil {
			return fail("its directory must exist and be writable for this user: ", err)
		}
		return whole, made.Close()
	case err != nil:
		return fail("", err)
	case info.IsDir():
		return fail("", errors.New("it is a directory; name a file in it, such as "+filepath.Join(path, "semel.db")))
	case !info.Mode().IsRegular():
		return fail("", errors.New("it is not a regular file"))
	case info.Size() > 0 && info.Size() < smallestFile:
		// SQLite takes a file of one byte for an empty one, and would write over it.
		return fail("", fmt.Errorf("it is no SQLite database: %d bytes are too few for one; it is another program's, or was cut off: name another path or put a backup back", info.Size()))
	}
	if wal, err := os.Stat(whole + "-wal"); err == nil && info.Size() == 0 && wal.Size() > 0 {
		return fail("", errors.New("the file is empty but its -wal file is not, so it was cut off; SQLite would delete the -wal file now: keep a copy of both and put a backup back"))
	}
	return whole, nil
}

func dsn(path string, readOnly bool) string {
	u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path)}
	if runtime.GOOS == "windows" {
		u.Path = "/" + u.Path
	}
	mode := "rw"
	if readOnly {
		mode = "ro"
	}
	u.RawQuery = url.Values{"mode": {mode}, "_error_rc": {"1"}, "_defensive": {"1"}}.Encode()
	return u.String()
}

func (f *file) open() error {
	o := f.options
	if !o.ReadOnly {
		c, err := f.connect(o.CacheBytes)
		if err != nil {
			return err
		}
		f.conn = c // from here on, close closes it
		if err := f.prepareFile(); err != nil {
			return err
		}
		if f.writer, err = newWriter(c); err != nil {
			return f.explain("prepare", err)
		}
		if err := f.startCheckpoints(); err != nil {
			return err
		}
	}
	for range o.Readers {
		f.readers <- &reader{}
		f.reading++
	}
	if !o.ReadOnly {
		return nil
	}
	c, err := f.connect(o.CacheBytes / 8)
	if err != nil {
		return err
	}
	_, err = f.identify(c, true)
	return errors.Join(err, c.close())
}

// connect opens a connection with the settings that hold for each of them.
func (f *file) connect(cacheBytes int) (*conn, error) {
	o := f.options
	c, err := connect(dsn(f.path, o.ReadOnly))
	if err != nil {
		return nil, f.explain("open", err)
	}
	for _, pragma := range [...]string{
		fmt.Sprintf("busy_timeout = %d", o.BusyTimeout.Milliseconds()),
		fmt.Sprintf("cache_size = %d", -(cacheBytes / 1024)),
		// One flush for each commit. On macOS a plain fsync does not reach the disk.
		"synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON",
		fmt.Sprintf("wal_autocheckpoint = %d", checkpointPages),
		"temp_store = MEMORY", "trusted_schema = OFF", "cell_size_check = ON",
	} {
		if err := c.run("PRAGMA " + pragma); err != nil {
			return nil, errors.Join(f.explain("open", err), c.close())
		}
	}
	return c, nil
}

// close waits for whoever writes, checkpoints or reads. Once is enough.
func (f *file) close() error {
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.mu.Unlock()
	if closed {
		return nil
	}
	f.stopCheckpoints()
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for range f.reading {
		r := <-f.readers // waits for whoever reads
		if r.conn != nil {
			errs = append(errs, r.close())
		}
	}
	close(f.readers)
	if f.conn != nil {
		errs = append(errs, f.conn.close())
		f.writer = writer{}
	}
	return errors.Join(errs...)
}

// waitFor repeats try while SQLite is busy with what its own timeout does not
// cover, for as long as that timeout.
func (o Options) waitFor(try func() error) error {
	end := time.Now().Add(o.BusyTimeout)
	for {
		err := try()
		if err == nil || !isBusy(err) || time.Now().After(end) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
