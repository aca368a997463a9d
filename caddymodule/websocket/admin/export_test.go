package admin

// For tests.
var (
	SetUp    = setUp
	Safe     = safe
	SafeJSON = safeJSON
	Lasting  = lasting
)
