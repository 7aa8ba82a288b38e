-- Module channel: the kernel's channels as they are.
local K = ...

return K.channels.api
