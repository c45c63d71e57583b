// Command device-plugin advertises GPUs that do not exist to a real kubelet, over the kubelet's own device plugin API (v1beta1), so that
// scheduling, allocation and the loss of a GPU can be tested on a machine without one. It gives no device to a container, only the environment
// variable that NVIDIA's plugin would set.
//
//	device-plugin serve --devices 2
//	device-plugin list
//	device-plugin health GPU-… unhealthy
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const defaultControl = "/run/chimera-cluster/device-plugin.sock"

const usage = `usage:
  device-plugin serve [--devices N] [--resource NAME] [--control SOCKET] [--kubelet-folder FOLDER]
  device-plugin list [--control SOCKET]
  device-plugin health [--control SOCKET] DEVICE healthy|unhealthy
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	control := flags.String("control", defaultControl, "socket on which health changes are asked for")

	var err error
	switch os.Args[1] {
	case "serve":
		count := flags.Int("devices", 2, "number of devices")
		resource := flags.String("resource", "nvidia.com/gpu", "extended resource")
		folder := flags.String("kubelet-folder", "/var/lib/kubelet/device-plugins", "the kubelet's folder of plugin sockets")
		_ = flags.Parse(os.Args[2:])
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		err = serve(ctx, *resource, *folder, *control, newInventory(*count))
	case "list":
		_ = flags.Parse(os.Args[2:])
		err = ask(*control, "list")
	case "health":
		_ = flags.Parse(os.Args[2:])
		if flags.NArg() != 2 {
			fmt.Fprint(os.Stderr, usage)
			os.Exit(2)
		}
		err = ask(*control, "health "+flags.Arg(0)+" "+flags.Arg(1))
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
