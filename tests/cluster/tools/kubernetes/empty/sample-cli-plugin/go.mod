// An empty stand-in: the published module is not to be had and no tool built here imports it.
module k8s.io/sample-cli-plugin

go 1.26
