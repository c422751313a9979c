package storage

import (
	"context"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Bounds of an annotation, in octets.
const (
	MaxAnnotation     = 1 << 20
	MaxAnnotationName = 512
)

// Annotator is an Account that keeps annotations (RFC 5464).
type Annotator interface {
	Account
	// Annotations returns those asked for that there are, or the names of what changed.
	// NOT_FOUND for a mailbox that is not there, INVALID for a wrong name.
	Annotations(ctx context.Context, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error)
	// SetAnnotations sets and removes: all or nothing. NOT_FOUND, INVALID, TOO_LARGE for
	// a value, OVER_QUOTA for too many.
	SetAnnotations(ctx context.Context, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error)
}

var errNoAnnotations = fail.New(fail.Unsupported, "this storage keeps no annotations")

// Annotations asks a, if it is an Annotator; else the error is UNSUPPORTED.
func Annotations(ctx context.Context, a Account, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
	if x, ok := a.(Annotator); ok {
		return x.Annotations(ctx, req)
	}
	return nil, errNoAnnotations
}

// SetAnnotations tells a, if it is an Annotator; else the error is UNSUPPORTED.
func SetAnnotations(ctx context.Context, a Account, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
	if x, ok := a.(Annotator); ok {
		return x.SetAnnotations(ctx, req)
	}
	return nil, errNoAnnotations
}

// AnnotationName checks a name and returns it as it is kept: in lower case. top: it
// may be "/private" or "/shared" alone.
func AnnotationName(name string, top bool) (string, error) {
	lower := strings.ToLower(name)
	if top && (lower == "/private" || lower == "/shared") {
		return lower, nil
	}
	_, rest, found := strings.Cut(strings.TrimPrefix(lower, "/"), "/")
	bad := strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '*' || r == '%' })
	if bad || !found || len(name) > MaxAnnotationName || slices.Contains(strings.Split(rest, "/"), "") ||
		!strings.HasPrefix(lower, "/private/") && !strings.HasPrefix(lower, "/shared/") {
		return "", fail.New(fail.Invalid, "%.100q is no name of an annotation: it begins with /private/ or /shared/, without blanks, * and %%", name)
	}
	return lower, nil
}

// CheckAnnotations returns a request with the names as they are kept.
func CheckAnnotations(req *v1.AnnotationsRequest) (*v1.AnnotationsRequest, error) {
	out := &v1.AnnotationsRequest{
		MailboxId: req.GetMailboxId(), Below: req.GetBelow(), MaxBytes: req.GetMaxBytes(), SinceModseq: req.GetSinceModseq(),
	}
	for _, n := range req.GetNames() {
		n, err := AnnotationName(n, req.GetBelow())
		if err != nil {
			return nil, err
		}
		out.Names = append(out.Names, n)
	}
	return out, nil
}

// CheckSetAnnotations returns the annotations of a request with their names as they
// are kept. INVALID, TOO_LARGE.
func CheckSetAnnotations(req *v1.SetAnnotationsRequest) ([]*v1.Annotation, error) {
	var out []*v1.Annotation
	seen := map[string]bool{}
	for _, x := range req.GetAnnotations() {
		name, err := AnnotationName(x.GetName(), false)
		switch {
		case err != nil:
			return nil, err
		case seen[name]:
			return nil, fail.New(fail.Invalid, "annotation %s twice in one request", name)
		case len(x.GetValue()) > MaxAnnotation:
			return nil, fail.New(fail.TooLarge, "annotation %s has %d octets: %d at most", name, len(x.GetValue()), MaxAnnotation)
		}
		seen[name] = true
		out = append(out, &v1.Annotation{Name: name, Value: x.GetValue(), Removed: x.GetRemoved()})
	}
	return out, nil
}

// WantsAnnotation tells whether a checked request asks for the annotation of that
// name.
func WantsAnnotation(req *v1.AnnotationsRequest, name string) bool {
	return len(req.GetNames()) == 0 || slices.ContainsFunc(req.GetNames(), func(n string) bool {
		return n == name || req.GetBelow() && strings.HasPrefix(name, n+"/")
	})
}

// FoundAnnotation is one of an answer to a checked request, which leaves out a value
// that is too large for it.
func FoundAnnotation(req *v1.AnnotationsRequest, name string, value []byte) *v1.Annotation {
	x := &v1.Annotation{Name: name, Size: int64(len(value))}
	if req.GetMaxBytes() == 0 || x.Size <= req.GetMaxBytes() {
		x.Value = value
	}
	return x
}

var _ Annotator = (*remote)(nil)

// Annotations implements Annotator: UNSUPPORTED if the other end does not.
func (a *remote) Annotations(ctx context.Context, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
	r, err := a.call(ctx, &v1.StorageCall{Op: &v1.StorageCall_Annotations{Annotations: req}})
	return result(r.GetAnnotations(), err)
}

// SetAnnotations implements Annotator: UNSUPPORTED if the other end does not.
func (a *remote) SetAnnotations(ctx context.Context, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
	r, err := a.call(ctx, &v1.StorageCall{Op: &v1.StorageCall_SetAnnotations{SetAnnotations: req}})
	return result(r.GetSetAnnotations(), err)
}
