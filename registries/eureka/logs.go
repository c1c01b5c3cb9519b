package eureka

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// RouteLogs redirects the client library's log, which goes to logrus' global
// logger, to slog. The program calls it once, after it has set up its own
// logging.
//
// All messages get the level debug, whatever level the library gives them: each
// failure is also the error of the call, and is logged once, with what to do
// about it.
func RouteLogs() {
	logrus.SetOutput(io.Discard)
	logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	logrus.AddHook(toSlog{})
	level := logrus.PanicLevel // the library logs nothing at this level
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
