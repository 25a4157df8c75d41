package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/semelhq/semel"
)

// A watch is a response that goes on: one byte for each thing to tell.
const (
	watchBegun   = 'b' // from now on changes are told; look once more at the key
	watchChanged = 'c'
	watchAlive   = 'a' // nothing happened
)

const (
	beat     = 10 * time.Second // between two signs of life
	silence  = 25 * time.Second // after which a watch is taken for dead
	watchFor = 2 * time.Minute  // after which the client has to ask again
	pause    = time.Second      // before a watch that failed is tried again
)

// watch tells a client of the changes of one key until it leaves.
func (h *Handler) watch(w http.ResponseWriter, r *http.Request, in *cursor) {
	digest := in.digest()
	if !in.whole() || h.watcher == nil {
		http.Error(w, "the payload does not decode, or asks for what the store cannot do", http.StatusBadRequest)
		return
	}
	select {
	case h.watching <- struct{}{}:
		defer func() { <-h.watching }()
	default:
		http.Error(w, "too many keys are watched", http.StatusServiceUnavailable)
		return
	}
	changed, stop := h.watcher.Watch(digest)
	defer stop()
	control := http.NewResponseController(w)
	// The deadline is for a client that is gone in silence. It must not outlive this
	// answer on a connection that is used again.
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	tell := func(what byte) bool {
		_ = control.SetWriteDeadline(time.Now().Add(silence)) // a server of tests may have none
		_, err := w.Write([]byte{what})
		return err == nil && control.Flush() == nil
	}
	w.Header().Set("Content-Type", watchType)
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	end := time.After(watchFor)
	for what := byte(watchBegun); tell(what); {
		select {
		case <-changed:
			what = watchChanged
		case <-ticker.C:
			what = watchAlive
		case <-end:
			return
		case <-h.closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}

type watcher struct {
	*core
	next semel.Store
}

var _ semel.Watcher = (*watcher)(nil)

// Unwrap is part of semel.Unwrapper.
func (s *watcher) Unwrap() semel.Store { return s.next }

// Watch is part of semel.Watcher. Since the far side begins to watch only some
// time after the call, the first hint comes when it does. More than 64 keys at
// once are not watched: their channels stay silent.
func (s *watcher) Watch(digest semel.Digest) (changed <-chan struct{}, stop func()) {
	hint := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.watching >= maxWatching {
		return hint, func() {}
	}
	s.watching++
	ctx, cancel := context.WithCancel(s.end)
	s.client.follow.Go(func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.watching--
		}()
		for ctx.Err() == nil {
			if s.followOnce(ctx, digest, hint) != nil {
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		}
	})
	return hint, cancel
}

// followOnce opens one watch and passes its hints on until it ends.
func (s *watcher) followOnce(ctx context.Context, digest semel.Digest, hint chan<- struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dead := time.AfterFunc(silence, cancel)
	defer dead.Stop()
	message := seal(append(begin(nil, verbWatch, newRequestID()), digest[:]...))
	request, err := s.request(ctx, http.MethodPost, prefix+verbs[verbWatch], message)
	if err != nil {
		return err
	}
	response, err := s.round(request, watchType)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var told [1]byte
	for {
		switch _, err := io.ReadFull(response.Body, told[:]); {
		case err != nil:
			return err
		case told[0] == watchBegun || told[0] == watchChanged:
			select {
			case hint <- struct{}{}:
			default: // one is enough
			}
		case told[0] != watchAlive:
			return fmt.Errorf("a watch told %q", told[0])
		}
		dead.Reset(silence)
	}
}
