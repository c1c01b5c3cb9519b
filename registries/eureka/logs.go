package eureka

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// RouteLogs sends what the client library logs, through logrus' global logger,
// to slog. It is for the program to call once, when its own logging is set up.
//
// All of it becomes debug, whatever the library calls it: each failure is also
// the error of the call, and logged once, with what to do about it.
func RouteLogs() {
	logrus.SetOutput(io.Discard)
	logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	logrus.AddHook(toSlog{})
	level := logrus.PanicLevel // the library has none of these
	if slog.Default().Enabled(context.Background(), slog.LevelDebug) {
		level = logrus.DebugLevel
	}
	logrus.SetLevel(level)
}

type toSlog struct{}

func (toSlog) Levels() []logrus.Level { return logrus.AllLevels }

func (toSlog) Fire(e *logrus.Entry) error {
	slog.Debug("eureka client: "+e.Message, "level_there", e.Level.String())
	return nil
}
