package natsbroker

// Check says what is wrong with the options, as New would. It reads the files that they
// name, and connects to nothing.
func (o Options) Check() error {
	_, err := o.check()
	return err
}
