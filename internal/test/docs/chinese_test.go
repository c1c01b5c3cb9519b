package docs

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	heading = regexp.MustCompile(`^(#{1,6}) (.+)$`)
	anchor  = regexp.MustCompile(`^<a id="([^"]+)"></a>$`)
	// noSlug matches the characters that a heading's link leaves out.
	noSlug       = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	anyVariable  = regexp.MustCompile(`\b(LASTCALL|CONSUL)_[A-Z0-9_]*[A-Z0-9]\b`)
	fragmentLink = regexp.MustCompile(`\]\(([^)#\s:]*)#([^)\s]+)\)`)
)

// TestChinese compares each Chinese page with the English one: the headings must
// have the same links in the same order, and the variables must be the same. Before
// each Chinese heading is the link of the English one, so that links to parts work
// in both pages.
func TestChinese(t *testing.T) {
	for english, chinese := range map[string]string{
		"README.md":          "README.zh-CN.md",
		"docs/operations.md": "docs/zh-CN/operations.md",
	} {
		t.Run(chinese, func(t *testing.T) {
			source, text := read(t, filepath.Join(project, english)), read(t, filepath.Join(project, chinese))
			if want, got := headings(source), translated(text); !slices.Equal(got, want) {
				t.Errorf("the headings are\n%s\nwant those of %s:\n%s", strings.Join(got, "\n"), english, strings.Join(want, "\n"))
			}
			variables := anyVariable.FindAllString(text, -1)
			for _, name := range anyVariable.FindAllString(source, -1) {
				if !slices.Contains(variables, name) {
					t.Errorf("%s is missing", name)
				}
			}
		})
	}
}

// TestFragments checks the links to parts of pages.
func TestFragments(t *testing.T) {
	for _, file := range markdown(t) {
		for _, target := range fragmentLink.FindAllStringSubmatch(read(t, file), -1) {
			page := file
			if target[1] != "" {
				page = filepath.Join(filepath.Dir(file), target[1])
			}
			if filepath.Ext(page) != ".md" {
				continue
			}
			text := read(t, page)
			if !strings.Contains(text, `<a id="`+target[2]+`">`) &&
				!slices.ContainsFunc(headings(text), func(h string) bool { return strings.HasSuffix(h, " "+target[2]) }) {
				t.Errorf("%s: %s has no part %q", file, page, target[2])
			}
		}
	}
}

// headings returns the level and the link of each heading of a page.
func headings(text string) (found []string) {
	for _, line := range prose(text) {
		if h := heading.FindStringSubmatch(line); h != nil {
			found = append(found, h[1]+" "+slug(h[2]))
		}
	}
	return found
}

// translated is headings for a page that has the links before its headings.
func translated(text string) (found []string) {
	before := ""
	for _, line := range prose(text) {
		if h := heading.FindStringSubmatch(line); h != nil {
			link := "without a link: " + h[2]
			if a := anchor.FindStringSubmatch(before); a != nil {
				link = a[1]
			}
			found = append(found, h[1]+" "+link)
		}
		before = line
	}
	return found
}

// prose returns the lines of a page outside of code blocks.
func prose(text string) (lines []string) {
	code := false
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
			continue
		}
		if !code {
			lines = append(lines, line)
		}
	}
	return lines
}

// slug returns a heading's link, as code hosting sites make it.
func slug(title string) string {
	return strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}
