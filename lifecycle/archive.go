package lifecycle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Archive is where days of the journal go before the store drops them. An Archive
// is safe for concurrent use.
type Archive interface {
	// Put keeps what write writes under name, for good before it returns: a day is
	// dropped after that. Under name is then all that write wrote, or, if Put fails,
	// what was there before. An error of write is an error of Put. What is there under
	// the same name has the same contents, unless somebody changed it, and is replaced.
	Put(ctx context.Context, name string, write func(io.Writer) error) error
}

// directory is an Archive of files.
type directory struct{ path string }

// temporary is how names of files begin that are being written.
const temporary = ".semel-"

// Directory gives an Archive that keeps each day as a file in the directory at
// path, which must exist; the files can be read by their owner alone. A file is
// written beside its place, flushed to disk, read back, and renamed. The error
// says what is wrong with the path. Give each store a directory of its own.
func Directory(path string) (Archive, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("lifecycle: the archive's directory: %w; create it, for this program's user alone", err)
	case !info.IsDir():
		return nil, fmt.Errorf("lifecycle: the archive %s is no directory; name one", path)
	}
	f, err := os.CreateTemp(path, temporary)
	if err != nil {
		return nil, fmt.Errorf("lifecycle: the archive's directory cannot be written to: %w", err)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return nil, fmt.Errorf("lifecycle: the archive's directory cannot be written to: %w", err)
	}
	d := &directory{path}
	return d, d.tidy()
}

// abandoned is the age at which a file that was being written is nobody's.
const abandoned = 48 * time.Hour

// tidy removes what processes that died have left behind.
func (d *directory) tidy() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("lifecycle: the archive's directory cannot be read: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), temporary) || !info.Mode().IsRegular() || time.Since(info.ModTime()) < abandoned {
			continue
		}
		if err := os.Remove(filepath.Join(d.path, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("lifecycle: a file that was left behind: %w", err)
		}
	}
	return nil
}

// Put is part of Archive.
func (d *directory) Put(ctx context.Context, name string, write func(io.Writer) error) (err error) {
	if name != filepath.Base(name) || !filepath.IsLocal(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("lifecycle: %q is no name for a file of the archive", name)
	}
	f, err := os.CreateTemp(d.path, temporary)
	if err != nil {
		return fmt.Errorf("lifecycle: the archive: %w", err)
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	sum := sha256.New()
	if err := write(io.MultiWriter(f, sum)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("lifecycle: the archive: %w", err)
	}
	if err := same(f, sum.Sum(nil)); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(d.path, name)); err != nil {
		return fmt.Errorf("lifecycle: the archive: %w", err)
	}
	kept = true
	return errors.Join(f.Close(), d.sync())
}

// same reads the file back.
func same(f *os.File, want []byte) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("lifecycle: the archive: %w", err)
	}
	got := sha256.New()
	if _, err := io.Copy(got, f); err != nil {
		return fmt.Errorf("lifecycle: the archive: reading back what was written: %w", err)
	}
	if !bytes.Equal(got.Sum(nil), want) {
		return fmt.Errorf("lifecycle: the archive: %s is not what was written to it; the disk may be failing", f.Name())
	}
	return nil
}

// sync makes the names in the directory durable.
func (d *directory) sync() error {
	dir, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("lifecycle: the archive: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("lifecycle: the archive's directory was not flushed: %w", err)
	}
	return nil
}
