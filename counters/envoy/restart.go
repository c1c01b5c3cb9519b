package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The states of a server in server.state that matter here.
const (
	preInitializing = 2
	initializing    = 3
)

// errAfterRestart begins what is said when the old process cannot be seen.
var errAfterRestart = errors.New("it was hot restarted")

// restart follows a hot restart. The old process works on what it has, and
// takes new connections until the new one is ready. Its statistics are added to
// those of the new one with each flush of these, every 5 s unless
// stats_flush_interval says otherwise, or with each reading where
// stats_flush_on_admin is set. In between they are as old as the last flush.
type restart struct {
	off     bool   // it is switched off in this Envoy
	asked   bool   // server and onAdmin are those of the process with this epoch
	epoch   int64  // of the process that was asked
	server  server // what it has said
	onAdmin bool   // its statistics are flushed with each reading
	uptime  int64  // at the first reading since it works; it changes with a flush
	works   bool   // uptime is set
	flushed bool   // there has been a flush since it works
}

// server is what /server_info says.
type server struct {
	Version string `json:"hot_restart_version"`
	Uptime  string `json:"uptime_current_epoch"`
	Options struct {
		Epoch         int64  `json:"restart_epoch"`
		OldEndsAfter  string `json:"parent_shutdown_time"`
		WithoutParent bool   `json:"skip_hot_restart_parent_stats"`
	} `json:"command_line_options"`
}

// endsFor is how much longer than it was told an old process is taken to live:
// its time begins when the new one is ready.
const endsFor = time.Minute

// oldIsOver reports whether the old process must have ended.
func (s server) oldIsOver() bool {
	uptime, err1 := time.ParseDuration(s.Uptime)
	ends, err2 := time.ParseDuration(s.Options.OldEndsAfter)
	return err1 == nil && err2 == nil && uptime > ends+endsFor
}

// previous returns how many connections an old process has that the statistics
// do not tell enough of, and an error when they do not tell anything of it yet.
func (c *Counter) previous(ctx context.Context, s stats) (conns int64, err error) {
	r := &c.restart
	if r.off {
		return 0, nil
	}
	epoch, known := s.server["hot_restart_epoch"]
	if !r.asked || !known || epoch != r.epoch || r.server.Options.WithoutParent {
		if err := c.askServer(ctx); err != nil {
			return 0, err
		}
	}
	switch {
	case r.off, r.server.Options.Epoch == 0:
		return 0, nil
	case r.server.Options.WithoutParent && r.server.oldIsOver():
		return 0, nil
	case r.server.Options.WithoutParent:
		return 0, fmt.Errorf("%w, and tells nothing of what its old process still has: leave out --skip-hot-restart-parent-stats", errAfterRestart)
	}
	parent, known := s.server["parent_connections"]
	uptime, known2 := s.server["uptime"]
	state, known3 := s.server["state"]
	if !known || !known2 || !known3 {
		return 0, fmt.Errorf("%w, and the statistics do not tell of its old process: stats_matcher must let the prefix server. through", errAfterRestart)
	}
	if state == preInitializing || state == initializing {
		r.works = false
		return 0, fmt.Errorf("%w, and the new process is not ready: the old one still takes requests", errAfterRestart)
	}
	if !r.works {
		r.works, r.uptime = true, uptime
	}
	if r.flushed = r.flushed || uptime != r.uptime; !r.flushed {
		return 0, fmt.Errorf("%w, and it is not known yet what its old process still has: it tells so every stats_flush_interval (5 s unless set)", errAfterRestart)
	}
	if r.onAdmin {
		return 0, nil
	}
	return parent, nil
}

// askServer asks the process that serves the admin interface now.
func (c *Counter) askServer(ctx context.Context) error {
	body, err := c.get(ctx, "server_info", "", answerLimit)
	if err != nil {
		return err
	}
	var now server
	if err := json.Unmarshal(body, &now); err != nil {
		return fmt.Errorf("the answer is not what Envoy says of itself: %w", err)
	}
	if now.Version == "" {
		return errors.New("the answer is not what Envoy says of itself: it lacks hot_restart_version")
	}
	r := &c.restart
	if r.asked && now.Options.Epoch == r.epoch {
		r.server = now
		return nil
	}
	*r = restart{off: now.Version == "disabled", server: now, asked: true, epoch: now.Options.Epoch}
	if r.off || r.epoch == 0 {
		return nil
	}
	if body, err = c.get(ctx, "config_dump", "mask=bootstrap.stats_flush_on_admin", statsLimit); err != nil {
		return err
	}
	var bootstrap struct {
		Configs []struct {
			Bootstrap struct {
				OnAdmin bool `json:"stats_flush_on_admin"`
			} `json:"bootstrap"`
		} `json:"configs"`
	}
	if err := json.Unmarshal(body, &bootstrap); err != nil {
		return fmt.Errorf("the answer is not Envoy's configuration: %w", err)
	}
	for _, one := range bootstrap.Configs {
		r.onAdmin = r.onAdmin || one.Bootstrap.OnAdmin
	}
	return nil
}
