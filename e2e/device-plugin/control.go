package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// answerControl takes one line per connection, `list` or `health DEVICE healthy|unhealthy`, and answers with lines of which the first is `ok` or
// `error: …`.
func answerControl(listener net.Listener, devices *inventory) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return // the listener was closed: the program ends
		}
		go func() {
			defer connection.Close()
			_ = connection.SetDeadline(time.Now().Add(5 * time.Second))
			line, err := bufio.NewReader(connection).ReadString('\n')
			if err != nil {
				return
			}
			answer, err := obey(strings.Fields(line), devices)
			if err != nil {
				answer = "error: " + err.Error() + "\n"
			} else {
				answer = "ok\n" + answer
			}
			_, _ = io.WriteString(connection, answer)
		}()
	}
}

func obey(words []string, devices *inventory) (string, error) {
	switch {
	case len(words) == 1 && words[0] == "list":
		var lines strings.Builder
		list, _ := devices.devices()
		for _, device := range list {
			fmt.Fprintf(&lines, "%s %s\n", device.ID, device.Health)
		}
		return lines.String(), nil
	case len(words) == 3 && words[0] == "health":
		switch strings.ToLower(words[2]) {
		case "healthy":
			return "", devices.setHealth(words[1], plugin.Healthy)
		case "unhealthy":
			return "", devices.setHealth(words[1], plugin.Unhealthy)
		}
	}
	return "", fmt.Errorf("not understood: %q", strings.Join(words, " "))
}

// ask sends one line to a running plugin and prints what it answers.
func ask(control, line string) error {
	connection, err := net.DialTimeout("unix", control, 5*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := fmt.Fprintln(connection, line); err != nil {
		return err
	}
	answer, err := io.ReadAll(connection)
	if err != nil {
		return err
	}
	verdict, rest, _ := strings.Cut(string(answer), "\n")
	if verdict != "ok" {
		return errors.New(strings.TrimPrefix(verdict, "error: "))
	}
	_, err = io.WriteString(os.Stdout, rest)
	return err
}
