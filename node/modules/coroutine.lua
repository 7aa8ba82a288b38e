-- Module coroutine: the kernel's guarded coroutines, and coroutine.spawn.
local K = ...

return K.guards.coroutines
