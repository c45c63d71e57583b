package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	socketName   = "chimera-device-plugin.sock"
	lookInterval = 250 * time.Millisecond
)

type server struct {
	plugin.UnimplementedDevicePluginServer
	ctx     context.Context
	devices *inventory
}

func (s *server) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

// ListAndWatch sends the whole list at once and again on every change, as the API demands.
func (s *server) ListAndWatch(_ *plugin.Empty, stream grpc.ServerStreamingServer[plugin.ListAndWatchResponse]) error {
	for {
		devices, changed := s.devices.devices()
		if err := stream.Send(&plugin.ListAndWatchResponse{Devices: devices}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		case <-s.ctx.Done():
			return nil
		}
	}
}

func (s *server) Allocate(_ context.Context, request *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	response := &plugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		ids := strings.Join(container.DevicesIds, ",")
		log.Printf("allocated %s", ids)
		response.ContainerResponses = append(response.ContainerResponses, &plugin.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": ids},
		})
	}
	return response, nil
}

// serve answers until ctx ends. A kubelet that starts removes every socket in its folder and makes its own anew, so the plugin serves and
// registers again whenever the kubelet's socket is another file than before.
func serve(ctx context.Context, resource, folder, control string, devices *inventory) error {
	if err := os.Remove(control); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	controlListener, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	defer controlListener.Close()
	if err := os.Chmod(control, 0o600); err != nil {
		return err
	}
	go answerControl(controlListener, devices)

	own := filepath.Join(folder, socketName)
	kubelet := filepath.Join(folder, "kubelet.sock")
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()

	var running *grpc.Server
	var registeredWith os.FileInfo
	defer func() {
		if running != nil {
			running.Stop()
		}
		_ = os.Remove(own)
	}()
	for {
		present, err := os.Stat(kubelet)
		_, ownMissing := os.Stat(own)
		if err == nil && (ownMissing != nil || registeredWith == nil || !os.SameFile(present, registeredWith)) {
			if running != nil {
				running.Stop()
			}
			registeredWith = nil
			if running, err = listen(ctx, own, devices); err != nil {
				return err
			}
			if err := register(ctx, kubelet, resource); err != nil {
				log.Printf("the kubelet does not register us yet: %v", err)
			} else {
				registeredWith = present
				log.Printf("registered %s", resource)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func listen(ctx context.Context, socket string, devices *inventory) (*grpc.Server, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	made := grpc.NewServer()
	plugin.RegisterDevicePluginServer(made, &server{ctx: ctx, devices: devices})
	go func() {
		if err := made.Serve(listener); err != nil {
			log.Printf("serving ended: %v", err)
		}
	}()
	return made, nil
}

func register(ctx context.Context, kubelet, resource string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = plugin.NewRegistrationClient(connection).Register(ctx, &plugin.RegisterRequest{
		Version:      plugin.Version,
		Endpoint:     socketName,
		ResourceName: resource,
		Options:      &plugin.DevicePluginOptions{},
	})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}
