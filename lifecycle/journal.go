package lifecycle

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"time"

	"github.com/semelhq/semel"
)

// A day in an archive is NDJSON, compressed by gzip: a line of JSON for each entry
// of the journal, in the order in which the store gives them, and one to end with,
// which has their number and the SHA-256 of all bytes before it. The same entries
// give the same bytes.

// journalFormat is the version of the lines.
const journalFormat = 1

// maxLine bounds a line that is read, in bytes.
const maxLine = 16 << 20

// journalLine is an entry for people, and Entry for programs: the bytes that
// semel.ParseEntry reads, with their checksum.
type journalLine struct {
	Digest      string    `json:"digest"`
	Scope       string    `json:"scope"`
	Key         string    `json:"key"`
	Fingerprint string    `json:"fingerprint"`
	State       string    `json:"state"`
	Class       string    `json:"class"`
	Version     string    `json:"version"`
	Nonce       string    `json:"nonce"`
	Attempt     int       `json:"attempt"`
	Code        int       `json:"code"`
	WrittenAt   time.Time `json:"written_at"`
	TTL         string    `json:"ttl"`
	Replay      string    `json:"replay"`
	ResultSum   string    `json:"result_sha256"` // empty where no result was kept
	Owner       string    `json:"owner"`
	Entry       []byte    `json:"entry"` // base64
}

// journalEnd is the last line.
type journalEnd struct {
	Format int    `json:"format"`
	Day    string `json:"day"`
	Lines  int64  `json:"lines"`
	Sum    string `json:"sha256"`
}

// journalSum tells one day's lines from others.
type journalSum struct {
	lines int64
	sum   [sha256.Size]byte
}

func lineOf(e *semel.Entry) journalLine {
	r := &e.Record
	l := journalLine{
		Digest: r.Digest.String(), Scope: r.Key.Scope, Key: r.Key.ID, Fingerprint: r.Fingerprint.String(),
		State: r.State.String(), Class: r.Class.String(), Version: r.Version.String(), Nonce: r.Nonce.String(),
		Attempt: r.Attempt, Code: r.Code, WrittenAt: r.WrittenAt.UTC(), TTL: r.TTL.String(), Replay: r.Replay.String(),
		Owner: r.Owner, Entry: e.AppendTo(nil),
	}
	if e.ResultSum != [sha256.Size]byte{} {
		l.ResultSum = hex.EncodeToString(e.ResultSum[:])
	}
	return l
}

// writeJournal writes the lines of a day to w. pause is called now and then, with
// how many were read since; at the end with 0.
func writeJournal(w io.Writer, day time.Time, lines iter.Seq2[semel.Entry, error], pause func(lines int) error) (journalSum, error) {
	out := bufio.NewWriterSize(w, 1<<16)
	sum := sha256.New()
	encode := json.NewEncoder(io.MultiWriter(out, sum))
	encode.SetEscapeHTML(false)
	var s journalSum
	for e, err := range lines {
		if err != nil {
			return s, err
		}
		if err := encode.Encode(lineOf(&e)); err != nil {
			return s, err
		}
		s.lines++
		if s.lines%pauseLines == 0 {
			if err := pause(pauseLines); err != nil {
				return s, err
			}
		}
	}
	sum.Sum(s.sum[:0])
	end := journalEnd{Format: journalFormat, Day: day.UTC().Format(time.DateOnly), Lines: s.lines, Sum: hex.EncodeToString(s.sum[:])}
	return s, errors.Join(encode.Encode(end), out.Flush(), pause(0))
}

// pauseLines is how many lines are read between two rests.
const pauseLines = 500

// ReadArchive reads back a day that a [Sweeper] gave to an [Archive], compressed or
// not. If it comes to its end without an error, the entries are all that were
// written, unchanged. An error is the last of the sequence: what came before it is
// not proven. It is [semel.ErrDamaged], unless it is r's own.
func ReadArchive(r io.Reader) iter.Seq2[semel.Entry, error] {
	return func(yield func(semel.Entry, error) bool) {
		in, err := plain(r)
		if err != nil {
			yield(semel.Entry{}, err)
			return
		}
		reader := &journalReader{in: bufio.NewReaderSize(in, 1<<16), sum: sha256.New()}
		for {
			e, more, err := reader.next()
			if err != nil {
				yield(semel.Entry{}, fmt.Errorf("lifecycle: line %d of the archive: %w", reader.lines+1, err))
				return
			}
			if !more || !yield(e, nil) {
				return
			}
		}
	}
}

// plain gives what r has, without gzip.
func plain(r io.Reader) (io.Reader, error) {
	in := bufio.NewReader(r)
	magic, err := in.Peek(2)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case !bytes.Equal(magic, []byte{0x1f, 0x8b}):
		return in, nil
	}
	z, err := gzip.NewReader(in)
	return z, damaged(err)
}

// damaged gives ErrDamaged for what gzip finds wrong.
func damaged(err error) error {
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it does not decompress, it may be cut off: %w", semel.ErrDamaged, err)
	}
	return err
}

type journalReader struct {
	in    *bufio.Reader
	sum   hash.Hash
	lines int64
}

// next gives the next entry; more is false after the last one, when the end has
// been found as it should be.
func (r *journalReader) next() (e semel.Entry, more bool, err error) {
	raw, err := r.line()
	switch {
	case errors.Is(err, io.EOF):
		return e, false, fmt.Errorf("%w: the end is missing, so it was cut off", semel.ErrDamaged)
	case err != nil:
		return e, false, err
	}
	var l struct {
		journalEnd
		Digest string `json:"digest"`
		Entry  []byte `json:"entry"`
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return e, false, fmt.Errorf("%w: it is no line of a journal: %w", semel.ErrDamaged, err)
	}
	if l.Format != 0 {
		return e, false, r.end(&l.journalEnd)
	}
	digest, err := semel.ParseDigest(l.Digest)
	if err != nil {
		return e, false, fmt.Errorf("%w: %w", semel.ErrDamaged, err)
	}
	if e, err = semel.ParseEntry(digest, l.Entry); err != nil {
		return e, false, err
	}
	r.sum.Write(raw)
	r.lines++
	return e, true, nil
}

// line gives the next line with the byte that ends it, until the next call.
func (r *journalReader) line() ([]byte, error) {
	var long []byte
	for {
		part, err := r.in.ReadSlice('\n')
		switch {
		case err == nil && long == nil:
			return part, nil
		case err == nil:
			return append(long, part...), nil
		case !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF):
			return nil, damaged(err)
		}
		long = append(long, part...)
		if errors.Is(err, io.EOF) && len(long) > 0 || len(long) > maxLine {
			return nil, fmt.Errorf("%w: the line does not end", semel.ErrDamaged)
		}
		if err != nil && errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
	}
}

// end compares the last line with what came before it.
func (r *journalReader) end(end *journalEnd) error {
	got := hex.EncodeToString(r.sum.Sum(nil))
	switch {
	case end.Format != journalFormat:
		return fmt.Errorf("%w: it has the format %d, and %d is known", semel.ErrDamaged, end.Format, journalFormat)
	case end.Lines != r.lines || end.Sum != got:
		return fmt.Errorf("%w: %d lines with the SHA-256 %s were written, and there are %d with %s", semel.ErrDamaged, end.Lines, end.Sum, r.lines, got)
	}
	switch _, err := r.in.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: there is more after the end", semel.ErrDamaged)
	case !errors.Is(err, io.EOF):
		return damaged(err)
	}
	return nil
}

// journalName is what a day is archived as. It has the sum in it: a day of which a
// part is gone already, because dropping it was cut off, must not replace the whole.
func journalName(day time.Time, s journalSum) string {
	return fmt.Sprintf("%s-%x.ndjson.gz", day.UTC().Format(time.DateOnly), s.sum[:8])
}

// grace is how long a day has to be over, so that no line comes any more. It is
// also more than what a key with a time of its own is kept beyond Remember.
const grace = time.Hour

// trim archives and drops the days of the journal that are old enough.
func (s *Sweeper) trim(ctx context.Context, p *Pass) error {
	if s.o.Journal == 0 {
		return nil
	}
	now, err := s.storeNow(ctx)
	if err != nil {
		return s.failed(ctx, time.Time{}, fmt.Errorf("lifecycle: asking for the store's clock: %w", err))
	}
	days, err := s.days.Days(ctx)
	if err != nil {
		return s.failed(ctx, time.Time{}, fmt.Errorf("lifecycle: listing the days of the journal: %w", err))
	}
	var wrong []error
	for _, day := range days {
		if now.Before(day.Add(24*time.Hour + s.o.Journal + grace)) {
			continue
		}
		if time.Now().Before(s.kept[day.Unix()].until) {
			continue
		}
		err := s.retire(ctx, day, p)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			wrong = append(wrong, s.failed(ctx, day, fmt.Errorf("lifecycle: the journal of %s stays in the store: %w", day.Format(time.DateOnly), err)))
			s.keep(day)
		default:
			delete(s.kept, day.Unix())
		}
	}
	return errors.Join(wrong...)
}

// keptDay is a day that could not be archived or dropped.
type keptDay struct {
	tries int
	until time.Time // on our clock: not tried again before
}

// keep has the day left alone for a while, so that reading it again and again is
// not all that is done.
func (s *Sweeper) keep(day time.Time) {
	k := s.kept[day.Unix()]
	k.until = time.Now().Add(min(s.o.Every<<min(k.tries, 6), time.Hour))
	k.tries++
	s.kept[day.Unix()] = k
}

// retire archives a day, and then drops it. A crash in between leaves the day to
// be archived again, to the same name.
func (s *Sweeper) retire(ctx context.Context, day time.Time, p *Pass) error {
	if s.o.Archive != nil {
		if err := s.archive(ctx, day, p); err != nil {
			return err
		}
	}
	if err := s.pace.wait(ctx); err != nil {
		return err
	}
	start := time.Now()
	limit, cancel := context.WithTimeout(ctx, longTimeout)
	defer cancel()
	err := s.days.DropDay(limit, day)
	s.spent(p, dropping, start, 0)
	if err != nil {
		return fmt.Errorf("dropping it: %w", err)
	}
	p.Dropped++
	s.o.Observe(Event{Kind: Dropped, Day: day})
	return nil
}

// archive reads the day twice: the first time for its name, which has the sum in
// it. The second time must give the same.
func (s *Sweeper) archive(ctx context.Context, day time.Time, p *Pass) error {
	write := func(w io.Writer) (journalSum, error) {
		if err := s.pace.wait(ctx); err != nil {
			return journalSum{}, err
		}
		start := time.Now()
		return writeJournal(w, day, s.days.Lines(ctx, day), func(lines int) error {
			s.spent(p, reading, start, lines)
			err := s.pace.wait(ctx)
			start = time.Now()
			return err
		})
	}
	first, err := write(io.Discard)
	if err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	if first.lines == 0 {
		return nil
	}
	name, written := journalName(day, first), false
	err = s.o.Archive.Put(ctx, name, func(w io.Writer) error {
		z := gzip.NewWriter(w)
		second, err := write(z)
		if err := errors.Join(err, z.Close()); err != nil {
			return err
		}
		if second != first {
			return fmt.Errorf("it gave %d lines, and then others, %d", first.lines, second.lines)
		}
		written = true
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("the archive: %w", err)
	case !written:
		return errors.New("the archive did not take what was to be written")
	}
	p.Archived++
	p.Lines += first.lines
	s.o.Observe(Event{Kind: Archived, Day: day, Name: name, Lines: first.lines})
	return nil
}
