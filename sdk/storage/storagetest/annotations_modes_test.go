package storagetest_test

import (
	"context"
	"slices"
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

func (a *account) Annotations(ctx context.Context, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
	plain := func(ctx context.Context, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
		return storage.Annotations(ctx, a.Account, req)
	}
	return call(ctx, a, a.with.annotations, plain, req)
}

func (a *account) SetAnnotations(ctx context.Context, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
	plain := func(ctx context.Context, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
		return storage.SetAnnotations(ctx, a.Account, req)
	}
	return call(ctx, a, a.with.setAnnotations, plain, req)
}

// annotationModes break annotations.
var annotationModes = []mode{
	{"compares the names of annotations with case", []string{"annotations are kept by name, in any case"}, func() tampering {
		return tampering{annotations: func(ctx context.Context, a storage.Account, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
			for i, n := range req.GetNames() {
				if n != strings.ToLower(n) {
					req.Names[i] = "/private/nothing"
				}
			}
			return storage.Annotations(ctx, a, req)
		}}
	}},
	{"takes any number of annotations", []string{"annotations that are wrong, or too many"}, func() tampering {
		return tampering{setAnnotations: func(ctx context.Context, a storage.Account, req *v1.SetAnnotationsRequest) (*v1.SetAnnotationsResponse, error) {
			req.MaxAnnotations = 0
			return storage.SetAnnotations(ctx, a, req)
		}}
	}},
	{"keeps annotations by the mailbox's name", []string{"annotations go where their mailbox goes"}, func() tampering {
		return tampering{rename: func(ctx context.Context, a storage.Account, req *v1.RenameMailboxRequest) (*v1.Mailbox, error) {
			m, err := a.Rename(ctx, req)
			if err != nil {
				return nil, err
			}
			_, err = storage.SetAnnotations(ctx, a, &v1.SetAnnotationsRequest{
				MailboxId: m.GetId(), Annotations: []*v1.Annotation{{Name: "/shared/comment", Removed: true}},
			})
			return m, err
		}}
	}},
	{"forgets that an annotation was removed", []string{"a change of an annotation is told"}, func() tampering {
		return tampering{annotations: func(ctx context.Context, a storage.Account, req *v1.AnnotationsRequest) (*v1.AnnotationsResponse, error) {
			resp, err := storage.Annotations(ctx, a, req)
			if err != nil {
				return nil, err
			}
			resp.Annotations = slices.DeleteFunc(resp.GetAnnotations(), func(x *v1.Annotation) bool { return x.GetRemoved() })
			return resp, err
		}}
	}},
}
