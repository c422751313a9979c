package config

// Severity of a diagnostic.
type Severity string

const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Place is a position in a file. Lines and columns count from 1, columns in
// characters.
type Place struct {
	File      string `json:"file"`
	Line      int    `json:"line"`
	Column    int    `json:"column"`
	EndLine   int    `json:"end_line"`
	EndColumn int    `json:"end_column"`
}

// Diagnostic is one mistake: where, what, and what to write instead.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Place is nil where no line is to blame (no files at all).
	Place *Place `json:"place,omitempty"`
	// Source is the text of Place's first line, without its line end.
	Source string `json:"source,omitempty"`
	// Text is what is wrong, Remedy what to write instead.
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
	// Also is the other place of a duplicate.
	Also *Place `json:"also,omitempty"`
}

// Diagnostics are sorted by position.
type Diagnostics []Diagnostic

// HasErrors reports whether one is more than a warning.
func (d Diagnostics) HasErrors() bool {
	for _, x := range d {
		if x.Severity == Error {
			return true
		}
	}
	return false
}
