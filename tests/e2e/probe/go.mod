module pilotlight.local/probe

go 1.24
