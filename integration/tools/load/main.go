// Command load makes containers through containerd, from a snapshot to nothing, and says how long
// each took. It is a client of the bench: ctr starts a program for each container, which costs more
// than the container.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
)

func main() {
	address := flag.String("address", "", "containerd's socket")
	namespace := flag.String("namespace", "default", "its namespace")
	runtime := flag.String("runtime", "", "the runtime's name")
	image := flag.String("image", "", "an image that containerd has")
	prefix := flag.String("prefix", "load", "of the containers' names")
	count := flag.Int("count", 10, "how many containers")
	parallel := flag.Int("parallel", 1, "how many at a time")
	flag.Parse()

	client, err := containerd.New(*address)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(context.Background(), *namespace)
	from, err := client.GetImage(ctx, *image)
	if err != nil {
		log.Fatal(err)
	}

	todo := make(chan string)
	var workers sync.WaitGroup
	begin := time.Now()
	for range *parallel {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for id := range todo {
				if err := run(ctx, client, from, id, *runtime); err != nil {
					log.Fatalf("%s: %v", id, err)
				}
			}
		}()
	}
	for n := range *count {
		todo <- fmt.Sprintf("%s-%d", *prefix, n)
	}
	close(todo)
	workers.Wait()
	// The whole, in nanoseconds: the bench divides.
	fmt.Println(time.Since(begin).Nanoseconds())
}

// run makes one container of the image that runs true, and removes all of it.
func run(ctx context.Context, client *containerd.Client, image containerd.Image, id, runtime string) error {
	container, err := client.NewContainer(ctx, id,
		containerd.WithImage(image),
		containerd.WithNewSnapshot(id, image),
		containerd.WithNewSpec(oci.WithImageConfig(image), oci.WithProcessArgs("true")),
		containerd.WithRuntime(runtime, nil))
	if err != nil {
		return err
	}
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return err
	}
	ended, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := task.Start(ctx); err != nil {
		return err
	}
	if status := <-ended; status.ExitCode() != 0 {
		return fmt.Errorf("exit status %d: %w", status.ExitCode(), status.Error())
	}
	if _, err := task.Delete(ctx); err != nil {
		return err
	}
	return container.Delete(ctx, containerd.WithSnapshotCleanup)
}
