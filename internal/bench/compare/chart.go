package compare

import (
	"fmt"
	"html"
	"strings"
	"time"
)

// The chart's dimensions, in pixels.
const (
	chartWidth = 930
	labels     = 300 // for the names
	bars       = 380 // for the longest time
	lineHeight = 26
	barHeight  = 14
	headHeight = 38
	margin     = 12
)

// The colours are of medium brightness, to be readable on white and on black: an
// image does not know the background of its page.
const (
	style = `text{font:12px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#768390}` +
		`.head{font-weight:600;font-size:13px}.us{font-weight:600}.good{fill:#3a9e4f}.bad{fill:#e0443c}.used{fill:#4184e4}.axis{stroke:#768390;stroke-opacity:.35}`
	hatch = `<pattern id="w" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">` +
		`<rect width="6" height="6" fill="#d29922" fill-opacity=".25"/><rect width="2" height="6" fill="#d29922"/></pattern>`
)

const chartTitle = "From the preStop hook’s call to its return, and failed requests; medians"

// SVG draws the medians: for each approach the time from the hook's call to its
// return, with the wasted part hatched, and the failed requests.
func (s Summary) SVG() string {
	var longest time.Duration
	for i := range s.Rows {
		longest = max(longest, s.Rows[i].Took.Median)
	}
	scale := func(d time.Duration) float64 { return bars * d.Seconds() / max(longest.Seconds(), 1) }

	var body strings.Builder
	fmt.Fprintf(&body, `<text x="%d" y="%d">%s</text>`+"\n", margin, margin+12, chartTitle)
	y := float64(margin + lineHeight)
	for _, scenario := range []Scenario{ByEndpoints, ByRegistry} {
		rows := s.of(scenario)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&body, `<text class="head" x="%d" y="%.0f">%s</text>`+"\n", margin, y+18, html.EscapeString(string(scenario)))
		y += headHeight
		fmt.Fprintf(&body, `<path class="axis" d="M%d %.0fv%d"/>`+"\n", labels, y-6, lineHeight*len(rows)+4)
		for i := range rows {
			drawRow(&body, &rows[i], y, scale)
			y += lineHeight
		}
		y += margin
	}
	fmt.Fprintf(&body, `<rect class="used" x="%d" y="%.0f" width="22" height="%d"/><text x="%d" y="%.0f">work in flight, or clients that could bring some</text>`+"\n",
		labels, y, barHeight, labels+30, y+12)
	fmt.Fprintf(&body, `<rect fill="url(#w)" x="%d" y="%.0f" width="22" height="%d"/><text x="%d" y="%.0f">wasted</text>`+"\n",
		labels+320, y, barHeight, labels+350, y+12)
	y += lineHeight

	height := y + margin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%.0f" viewBox="0 0 %d %.0f" role="img">`+"\n", chartWidth, height, chartWidth, height) +
		"<title>" + chartTitle + "</title>\n" +
		"<style>" + style + "</style><defs>" + hatch + "</defs>\n" + body.String() + "</svg>\n"
}

func drawRow(out *strings.Builder, r *Row, y float64, scale func(time.Duration) float64) {
	fmt.Fprintf(out, `<text%s text-anchor="end" x="%d" y="%.0f">%s</text>`, ifUs(r), labels-8, y+12, html.EscapeString(strings.ReplaceAll(r.Approach, "`", "")))
	used := scale(r.Took.Median - r.Wasted.Median)
	wasted := scale(r.Wasted.Median)
	fmt.Fprintf(out, `<rect class="used" x="%d" y="%.0f" width="%.1f" height="%d"/>`, labels, y, used, barHeight)
	if wasted > 0 {
		fmt.Fprintf(out, `<rect fill="url(#w)" x="%.1f" y="%.0f" width="%.1f" height="%d"/>`, labels+used, y, wasted, barHeight)
	}
	said := seconds(r.Took.Median)
	switch {
	case r.Cut > 0:
		said += ", then cut off"
	case wasted > 0:
		said += ", " + seconds(r.Wasted.Median) + " wasted"
	}
	class, failed := "good", "none failed"
	switch {
	case r.Failed.Median > 0:
		class, failed = "bad", fmt.Sprintf("%d failed", r.Failed.Median)
	case !r.perfect():
		class, failed = "bad", fmt.Sprintf("up to %d failed", r.Failed.Most)
	}
	fmt.Fprintf(out, `<text%s x="%.1f" y="%.0f">%s, <tspan class="%s">%s</tspan></text>`+"\n", ifUs(r), labels+used+wasted+8, y+12, said, class, failed)
}

func ifUs(r *Row) string {
	if r.isOurs() {
		return ` class="us"`
	}
	return ""
}
