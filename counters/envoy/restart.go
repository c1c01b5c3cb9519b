package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The relevant values of server.state.
const (
	preInitializing = 2
	initializing    = 3
)

// errAfterRestart is the beginning of errors about an old process that cannot
// be seen.
var errAfterRestart = errors.New("it was hot restarted")

// restart follows a hot restart. The old process finishes its work, and accepts
// new connections until the new process is ready. Its statistics are added to
// those of the new process when these are flushed: every 5 s unless
// stats_flush_interval is set, or with each reading if stats_flush_on_admin is
// set. In between, they are as old as the last flush.
type restart struct {
	off     bool   // hot restart is disabled in this Envoy
	asked   bool   // server and onAdmin belong to the process with this epoch
	epoch   int64  // of the process that was asked
	server  server // its answer
	onAdmin bool   // its statistics are flushed with each reading
	uptime  int64  // at the first reading since the process is ready; a flush changes it
	works   bool   // uptime is set
	flushed bool   // there has been a flush since the process is ready
}

// server is the answer of /server_info.
type server struct {
	Version string `json:"hot_restart_version"`
	Uptime  string `json:"uptime_current_epoch"`
	Options struct {
		Epoch         int64  `json:"restart_epoch"`
		OldEndsAfter  string `json:"parent_shutdown_time"`
		WithoutParent bool   `json:"skip_hot_restart_parent_stats"`
	} `json:"command_line_options"`
}

// endsFor is how much longer than configured an old process is assumed to live:
// its time begins when the new process is ready.
const endsFor = time.Minute

// oldIsOver reports whether the old process must have ended.
func (s server) oldIsOver() bool {
	uptime, err1 := time.ParseDuration(s.Uptime)
	ends, err2 := time.ParseDuration(s.Options.OldEndsAfter)
	return err1 == nil && err2 == nil && uptime > ends+endsFor
}

// previous returns how many connections an old process has that the statistics
// do not fully include. It returns an error if they do not include anything
// about the old process yet.
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
		return 0, fmt.Errorf("%w, and does not report what its old process still has: remove --skip-hot-restart-parent-stats", errAfterRestart)
	}
	parent, known := s.server["parent_connections"]
	uptime, known2 := s.server["uptime"]
	state, known3 := s.server["state"]
	if !known || !known2 || !known3 {
		return 0, fmt.Errorf("%w, and the statistics do not include its old process: stats_matcher must allow the prefix `server.`", errAfterRestart)
	}
	if state == preInitializing || state == initializing {
		r.works = false
		return 0, fmt.Errorf("%w, and the new process is not ready: the old one still takes requests", errAfterRestart)
	}
	if !r.works {
		r.works, r.uptime = true, uptime
	}
	if r.flushed = r.flushed || uptime != r.uptime; !r.flushed {
		return 0, fmt.Errorf("%w, and it is not known yet what its old process still has: this is reported every stats_flush_interval (5 s unless set)", errAfterRestart)
	}
	if r.onAdmin {
		return 0, nil
	}
	return parent, nil
}

// askServer asks the process that currently serves the admin interface.
func (c *Counter) askServer(ctx context.Context) error {
	body, err := c.get(ctx, "server_info", "", answerLimit)
	if err != nil {
		return err
	}
	var now server
	if err := json.Unmarshal(body, &now); err != nil {
		return fmt.Errorf("the answer is not Envoy's server_info: %w", err)
	}
	if now.Version == "" {
		return errors.New("the answer is not Envoy's server_info: it lacks hot_restart_version")
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
