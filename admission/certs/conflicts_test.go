package certs_test

import (
	"errors"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/testing"
)

// conflicts makes the client refuse an update that was made from an older version, as
// API servers do. client-go's fake does not: its tracker replaces whatever is there.
func conflicts(client *fake.Clientset) {
	var mu sync.Mutex
	versions := 0
	write := func(action testing.Action, written runtime.Object, update bool) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		object := written.DeepCopyObject()
		changed, err := meta.Accessor(object)
		if err != nil {
			return true, nil, err
		}
		resource := action.GetResource()
		if update {
			current, err := client.Tracker().Get(resource, action.GetNamespace(), changed.GetName())
			if err != nil {
				return true, nil, err
			}
			if is, err := meta.Accessor(current); err != nil || is.GetResourceVersion() != changed.GetResourceVersion() {
				return true, nil, apierrors.NewConflict(resource.GroupResource(), changed.GetName(), errors.New("it has changed"))
			}
		}
		versions++
		changed.SetResourceVersion(strconv.Itoa(versions))
		if update {
			err = client.Tracker().Update(resource, object, action.GetNamespace())
		} else {
			err = client.Tracker().Create(resource, object, action.GetNamespace())
		}
		return true, object, err
	}
	client.PrependReactor("create", "*", func(action testing.Action) (bool, runtime.Object, error) {
		return write(action, action.(testing.CreateAction).GetObject(), false)
	})
	client.PrependReactor("update", "*", func(action testing.Action) (bool, runtime.Object, error) {
		return write(action, action.(testing.UpdateAction).GetObject(), true)
	})
}
