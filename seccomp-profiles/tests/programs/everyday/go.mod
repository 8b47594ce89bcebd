module pilotlight.test/everyday

go 1.24
