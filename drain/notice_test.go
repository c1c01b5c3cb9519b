package drain

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeNotice is written or not.
type fakeNotice struct {
	mu      sync.Mutex
	mode    mode
	written bool
	calls   int
}

func (f *fakeNotice) set(ctx context.Context, written bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.mode == failing {
		return errBroken
	}
	f.written = written
	return ctx.Err()
}

func (f *fakeNotice) Post(ctx context.Context) error   { return f.set(ctx, true) }
func (f *fakeNotice) Remove(ctx context.Context) error { return f.set(ctx, false) }

func (f *fakeNotice) is() (written bool, calls int) {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.written, f.calls
}

func TestTheAppIsTold(t *testing.T) {
	notice := &fakeNotice{written: true} // left by a sidecar that was killed
	inPod(t, func(c *Config, _ *pod) { c.Notice = notice }, func(t *testing.T, p *pod) {
		if written, _ := notice.is(); written {
			t.Fatal("an old notice stays while the pod serves")
		}
		p.Begin(CauseCall)
		if written, calls := notice.is(); !written || calls != 2 {
			t.Fatalf("written %v after %d calls", written, calls)
		}
		if err := p.TakeBack(context.Background()); err != nil {
			t.Fatal(err)
		}
		if written, _ := notice.is(); written {
			t.Fatal("the notice stays when the drain was taken back")
		}
		p.hook()
		if written, calls := notice.is(); !written || calls != 4 {
			t.Fatalf("written %v after %d calls", written, calls)
		}
	})
}

// A notice that cannot be written is tried again, and holds nothing up.
func TestANoticeThatFailsHoldsNothingUp(t *testing.T) {
	notice := &fakeNotice{mode: failing}
	inPod(t, func(c *Config, _ *pod) { c.Notice = notice }, func(t *testing.T, p *pod) {
		var hook sync.WaitGroup
		hook.Go(func() {
			_, took := p.hook()
			about(t, "client refresh and quiet", took, 6*time.Second)
		})
		after(time.Second)
		if _, calls := notice.is(); calls < 3 {
			t.Errorf("tried %d times", calls)
		}
		notice.mu.Lock()
		notice.mode = healthy
		notice.mu.Unlock()
		after(3 * time.Second)
		if written, _ := notice.is(); !written {
			t.Error("not written when it could be")
		}
		hook.Wait()
	})
}

// A drain that begins before the old notice could be removed posts it again.
func TestANoticeIsPostedWhateverWasThere(t *testing.T) {
	notice := &fakeNotice{mode: failing}
	inPod(t, func(c *Config, _ *pod) { c.Notice = notice }, func(t *testing.T, p *pod) {
		after(time.Second)
		notice.mu.Lock()
		notice.mode = healthy
		notice.mu.Unlock()
		p.Begin(CauseCall)
		if written, _ := notice.is(); !written {
			t.Error("not written")
		}
	})
}
