package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

var errUnknownDevice = errors.New("no such device")

// inventory is the list of devices and their health. Whoever watches it is told of a change by the closing of a channel.
type inventory struct {
	mutex   sync.Mutex
	ids     []string
	health  map[string]string
	changed chan struct{}
}

// newInventory makes count healthy devices. Their ids look like those of NVIDIA and are the same in every start, because the kubelet remembers
// which container holds which.
func newInventory(count int) *inventory {
	made := &inventory{health: map[string]string{}, changed: make(chan struct{})}
	for index := range count {
		digest := sha256.Sum256(fmt.Appendf(nil, "chimera device %d", index))
		id := fmt.Sprintf("GPU-%x-%x-%x-%x-%x", digest[0:4], digest[4:6], digest[6:8], digest[8:10], digest[10:16])
		made.ids = append(made.ids, id)
		made.health[id] = plugin.Healthy
	}
	return made
}

// devices returns the present list and a channel that is closed when it is no longer true.
func (i *inventory) devices() ([]*plugin.Device, <-chan struct{}) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	list := make([]*plugin.Device, 0, len(i.ids))
	for _, id := range i.ids {
		list = append(list, &plugin.Device{ID: id, Health: i.health[id]})
	}
	return list, i.changed
}

func (i *inventory) setHealth(id, health string) error {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	before, known := i.health[id]
	if !known {
		return fmt.Errorf("%w: %s", errUnknownDevice, id)
	}
	if before != health {
		i.health[id] = health
		close(i.changed)
		i.changed = make(chan struct{})
	}
	return nil
}
