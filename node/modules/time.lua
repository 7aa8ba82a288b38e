-- Module time, its values: instants, durations and zones with the layouts of Go.
--
-- Made by `chunk(env)`, once per process: `env.errors` is the errors module, `env.now_ns()` the
-- clock in nanoseconds since 1970. What waits (sleep, after, timer, ticker) is the kernel's; it
-- reads durations with `to_ns`. An instant is kept as whole seconds and nanoseconds, so that no
-- year overflows. The local zone is what `os.date` says; named zones but for UTC and fixed offsets
-- come from the Python half as the list of their changes.

local byte, find, format, gsub, match, rep, sub =
    string.byte, string.find, string.format, string.gsub, string.match, string.rep, string.sub
local lower, upper = string.lower, string.upper
local concat = table.concat
local floor, huge = math.floor, math.huge
local error, ipairs, pairs, pcall, setmetatable, tonumber, tostring, type =
    error, ipairs, pairs, pcall, setmetatable, tonumber, tostring, type
local os_date = os.date

local SECOND = 1000000000
local MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400
local MAX_NS, MIN_NS = 9223372036854775807, -9223372036854775807 - 1
local LONGEST = 9223372036854774784 -- the largest number of nanoseconds that a float holds exactly
local YEAR_ONE = -62135596800 -- 0001-01-01T00:00:00Z in seconds since 1970
local MAX_YEAR = 100000000
local MAX_LAYOUTS = 128

local MONTHS = {
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
}
local WEEKDAYS = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" }
local LAYOUTS = {
    RFC3339 = "2006-01-02T15:04:05Z07:00",
    RFC3339NANO = "2006-01-02T15:04:05.999999999Z07:00",
    RFC822 = "02 Jan 06 15:04 MST",
    RFC822Z = "02 Jan 06 15:04 -0700",
    RFC850 = "Monday, 02-Jan-06 15:04:05 MST",
    RFC1123 = "Mon, 02 Jan 2006 15:04:05 MST",
    RFC1123Z = "Mon, 02 Jan 2006 15:04:05 -0700",
    DATE_TIME = "2006-01-02 15:04:05",
    DATE_ONLY = "2006-01-02",
    TIME_ONLY = "15:04:05",
    KITCHEN = "3:04PM",
    STAMP = "Jan _2 15:04:05",
    STAMP_MILLI = "Jan _2 15:04:05.000",
    STAMP_MICRO = "Jan _2 15:04:05.000000",
    STAMP_NANO = "Jan _2 15:04:05.000000000",
}

local function expect(ok, message)
    if not ok then error(message, 3) end
end

-- Calendar: days since 1970 to a date of the proleptic Gregorian calendar and back. A year is
-- counted from March, so that the leap day is its last; 400 of them are an era of 146,097 days.

local function days_of(year, month, day)
    local months = month - 1
    year = year + floor(months / 12)
    months = (months - 2) % 12
    if months >= 10 then year = year - 1 end
    local era = floor(year / 400)
    local year_of_era = year - era * 400
    local day_of_year = floor((153 * months + 2) / 5)
    local leap_days = floor(year_of_era / 4) - floor(year_of_era / 100)
    return era * 146097 + year_of_era * 365 + leap_days + day_of_year + day - 719469
end

local function date_of(days)
    days = days + 719468
    local era = floor(days / 146097)
    local day_of_era = days - era * 146097
    local year_of_era = floor(
        (day_of_era - floor(day_of_era / 1460) + floor(day_of_era / 36524) - floor(day_of_era / 146096)) / 365
    )
    local day_of_year = day_of_era - (365 * year_of_era + floor(year_of_era / 4) - floor(year_of_era / 100))
    local months = floor((5 * day_of_year + 2) / 153)
    local day = day_of_year - floor((153 * months + 2) / 5) + 1
    local month = months < 10 and months + 3 or months - 9
    local year = year_of_era + era * 400
    return month <= 2 and year + 1 or year, month, day
end

local function days_in(year, month)
    return days_of(year, month + 1, 1) - days_of(year, month, 1)
end

-- Zones. What a location is stays out of the object: UTC and Local are shared by all processes of the VM.

local zones = setmetatable({}, { __mode = "k" }) -- location -> {name, seconds east of UTC or false for the local zone}
local Location = {}

local function location_text(self)
    return zones[self].name
end
Location.string = location_text

local location_meta = {
    __index = Location,
    __newindex = function() error("a location can't be changed", 2) end,
    __tostring = location_text,
    __metatable = false,
}

local function new_location(name, offset, changes)
    local location = setmetatable({}, location_meta)
    zones[location] = { name = name, offset = offset, changes = changes }
    return location
end

local UTC, LOCAL = new_location("UTC", 0), new_location("Local", false)

local function is_location(value)
    return zones[value] ~= nil
end

-- The last of the changes of a zone until `seconds`; before all of them the first holds.
local function change_at(changes, seconds)
    local at = changes.at
    local low, high = 1, #at
    while low < high do
        local middle = (low + high + 1) // 2
        if at[middle] <= seconds then low = middle else high = middle - 1 end
    end
    return changes.offset[low], changes.name[low]
end

-- Seconds east of UTC and the abbreviation that hold in `location` at `seconds` since 1970.
local function zone_at(location, seconds)
    local zone = zones[location]
    if zone.offset then return zone.offset, zone.name end
    if zone.changes then return change_at(zone.changes, seconds) end
    local known, text = pcall(os_date, "%z %Z", seconds)
    local sign, hours, minutes, name = match(known and text or "", "^([+-])(%d%d)(%d%d) (.*)$")
    if not sign then return 0, "UTC" end
    local offset = tonumber(hours) * 3600 + tonumber(minutes) * 60
    return sign == "-" and -offset or offset, name
end

-- The instant of a wall clock in `location`: its offset depends on the instant, so it is sought in two steps.
local function instant_of(wall, location)
    local offset = zone_at(location, wall)
    local seconds = wall - offset
    local there = zone_at(location, seconds)
    return there == offset and seconds or wall - there
end

-- Durations

local Duration = {}
local UNITS = {
    ns = 1, us = 1000, ["\194\181s"] = 1000, ["\206\188s"] = 1000, ms = 1000000, s = SECOND, m = MINUTE, h = HOUR,
}

-- Whole units, cut towards zero.
local function units(ns, unit)
    local left = ns % unit
    if ns < 0 and left ~= 0 then ns = ns + unit end
    return floor((ns - left) / unit + 0.5)
end

function Duration:nanoseconds() return self._ns end
function Duration:microseconds() return units(self._ns, 1000) end
function Duration:milliseconds() return units(self._ns, 1000000) end
function Duration:seconds() return self._ns / SECOND end
function Duration:minutes() return self._ns / MINUTE end
function Duration:hours() return self._ns / HOUR end

local function trimmed(number, digits)
    local text = gsub(format("%0" .. digits .. "d", number), "0+$", "")
    return text == "" and "" or "." .. text
end

local function duration_text(self)
    local ns = self._ns
    if ns == 0 then return "0s" end
    if ns == MIN_NS then return "-2562047h47m16.854775808s" end
    local sign = ns < 0 and "-" or ""
    if ns < 0 then ns = -ns end
    if ns < 1000 then return sign .. format("%dns", ns) end
    if ns < 1000000 then return sign .. format("%d%s\194\181s", floor(ns / 1000), trimmed(ns % 1000, 3)) end
    if ns < SECOND then return sign .. format("%d%sms", floor(ns / 1000000), trimmed(ns % 1000000, 6)) end
    local part = ns % SECOND
    local whole = floor((ns - part) / SECOND + 0.5)
    local text = format("%d%ss", whole % 60, trimmed(part, 9))
    if whole >= 60 then text = format("%dm", floor(whole / 60) % 60) .. text end
    if whole >= 3600 then text = format("%dh", floor(whole / 3600)) .. text end
    return sign .. text
end

local duration_meta = {
    __index = Duration,
    __newindex = function() error("a duration can't be changed", 2) end,
    __tostring = duration_text,
    __eq = function(a, b) return a._ns == b._ns end,
    __lt = function(a, b) return a._ns < b._ns end,
    __le = function(a, b) return a._ns <= b._ns end,
    __metatable = false,
}

local function new_duration(ns)
    return setmetatable({ _ns = ns }, duration_meta)
end

local function is_duration(value)
    return type(value) == "table" and value.nanoseconds == Duration.nanoseconds and type(value._ns) == "number"
end

-- "1h30m", "-1.5s", "500ms", "0": nanoseconds, or nil and what is wrong.
local function parse_duration_text(text)
    local sign, rest = match(text, "^([+-]?)(.*)$")
    if rest == "0" then return 0 end
    if rest == "" then return nil, "it is empty" end
    local total, at = 0, 1
    while at <= #rest do
        local whole, fraction, unit, after = match(rest, "^(%d*)(%.?%d*)([^%d.]*)()", at)
        if whole == "" and (fraction == "" or fraction == ".") then return nil, "expected a number with a unit" end
        local scale = UNITS[unit]
        if not scale then
            return nil, unit == "" and "a number without a unit" or format("unknown unit %q", sub(unit, 1, 20))
        end
        local count = #whole <= 18 and tonumber(whole == "" and "0" or whole)
        local part = #fraction > 1 and floor(tonumber("0" .. sub(fraction, 1, 19)) * scale + 1e-6) or 0
        if not count or count > LONGEST / scale or part > MAX_NS - total - count * scale then
            return nil, "it is longer than 292 years"
        end
        total = total + count * scale + part
        at = after
    end
    return sign == "-" and -total or total
end

-- A number of nanoseconds, a text or a Duration: nanoseconds, or nil and what is wrong.
local read_duration
function read_duration(value)
    local kind = type(value)
    if kind == "number" then
        if value ~= value or value >= 9.223372036854775807e18 or value < -9.223372036854775808e18 then
            return nil, format("%s nanoseconds are out of range; the longest duration is 292 years", tostring(value))
        end
        return value < 0 and -floor(-value) or floor(value)
    elseif kind == "string" then
        local ns, reason = parse_duration_text(value)
        if ns then return ns end
        reason = reason .. '; write it like "1h30m", "500ms" or "1.5s"'
        return nil, format("invalid duration %q: %s", sub(value, 1, 40), reason)
    elseif is_duration(value) then
        return read_duration(value._ns)
    end
    return nil, "expected a duration (nanoseconds, text or Duration), got " .. kind
end

-- Layouts: a text that shows how the instant of 2 January 2006, 15:04:05 in a zone 7 hours west would be written.
-- Cut once into pieces {literal, element}; the last piece may have no element.

local ELEMENTS = {
    J = { "January", "Jan" },
    M = { "Monday", "Mon", "MST" },
    ["0"] = { "002", "01", "02", "03", "04", "05", "06" },
    ["1"] = { "15", "1" },
    ["2"] = { "2006", "2" },
    ["_"] = { "__2", "_2" },
    ["3"] = { "3" },
    ["4"] = { "4" },
    ["5"] = { "5" },
    P = { "PM" },
    p = { "pm" },
    ["-"] = { "-070000", "-07:00:00", "-0700", "-07:00", "-07" },
    Z = { "Z070000", "Z07:00:00", "Z0700", "Z07:00", "Z07" },
}

local function element_at(layout, at)
    local first = sub(layout, at, at)
    if first == "." or first == "," then
        local digits = match(layout, "^0+", at + 1) or match(layout, "^9+", at + 1)
        if digits and not find(layout, "^%d", at + 1 + #digits) then return first .. digits end
        return nil
    end
    if first == "_" and sub(layout, at, at + 4) == "_2006" then return nil end
    for _, element in ipairs(ELEMENTS[first] or {}) do
        if sub(layout, at, at + #element - 1) == element then
            local short = element == "Jan" or element == "Mon"
            if not (short and find(layout, "^%l", at + 3)) then return element end
        end
    end
    return nil
end

local layouts, layout_count = {}, 0

local function pieces_of(layout)
    local pieces = layouts[layout]
    if pieces then return pieces end
    pieces = {}
    local literal_from, at = 1, 1
    while at <= #layout do
        local element = element_at(layout, at)
        if element then
            pieces[#pieces + 1] = { sub(layout, literal_from, at - 1), element }
            literal_from = at + #element
        end
        at = element and literal_from or at + 1
    end
    pieces[#pieces + 1] = { sub(layout, literal_from) }
    if layout_count >= MAX_LAYOUTS then layouts, layout_count = {}, 0 end
    layouts[layout] = pieces
    layout_count = layout_count + 1
    return pieces
end

-- Instants

local Time = {}
local time_meta = {
    __index = Time,
    __newindex = function() error("a time can't be changed", 2) end,
    __metatable = false,
}

local function is_time(value)
    return type(value) == "table" and value.unix_nano == Time.unix_nano
end

local function new_time(seconds, ns, location)
    return setmetatable({ _seconds = seconds, _ns = ns, _location = location }, time_meta)
end

local function split(ns)
    local part = ns % SECOND
    return floor((ns - part) / SECOND + 0.5), part
end

-- The instant `ns` nanoseconds after a whole second.
local function shifted(seconds, ns, location)
    local more, part = split(ns)
    return new_time(seconds + more, part, location)
end

local function wall(self)
    local offset, name = zone_at(self._location, self._seconds)
    local seconds = self._seconds + offset
    local days = floor(seconds / DAY)
    return days, seconds - days * DAY, offset, name
end

function Time:date() return date_of((wall(self))) end
function Time:year() return (date_of((wall(self)))) end

function Time:month()
    local _, month = date_of((wall(self)))
    return month
end

function Time:day()
    local _, _, day = date_of((wall(self)))
    return day
end

function Time:clock()
    local _, seconds = wall(self)
    return floor(seconds / 3600), floor(seconds / 60) % 60, seconds % 60
end

function Time:hour() return (self:clock()) end

function Time:minute()
    local _, minute = self:clock()
    return minute
end

function Time:second()
    local _, _, second = self:clock()
    return second
end

function Time:nanosecond() return self._ns end
function Time:weekday() return (wall(self) + 4) % 7 end

function Time:year_day()
    local days = wall(self)
    return days - days_of(date_of(days), 1, 1) + 1
end

function Time:unix() return self._seconds end
function Time:unix_nano() return self._seconds * SECOND + self._ns end
function Time:is_zero() return self._seconds == YEAR_ONE and self._ns == 0 end
function Time:location() return self._location end
function Time:utc() return new_time(self._seconds, self._ns, UTC) end
function Time:in_local() return new_time(self._seconds, self._ns, LOCAL) end

function Time:in_location(location)
    expect(is_location(location), "in_location: expected a Location, got " .. type(location))
    return new_time(self._seconds, self._ns, location)
end

function Time:add(duration)
    local ns, reason = read_duration(duration)
    expect(ns, reason)
    local seconds, part = split(ns)
    return shifted(self._seconds + seconds, self._ns + part, self._location)
end

-- The distance as a Duration; beyond 292 years it is the longest there is.
function Time:sub(other)
    expect(is_time(other), "sub: expected a Time, got " .. type(other))
    local seconds, ns = self._seconds - other._seconds, self._ns - other._ns
    if seconds >= 9223372036 then return new_duration(MAX_NS) end
    if seconds <= -9223372036 then return new_duration(MIN_NS) end
    return new_duration(seconds * SECOND + ns)
end

local function compare(a, b)
    expect(is_time(a) and is_time(b), "expected a Time to compare with")
    if a._seconds ~= b._seconds then return a._seconds < b._seconds and -1 or 1 end
    return a._ns == b._ns and 0 or a._ns < b._ns and -1 or 1
end

function Time:before(other) return compare(self, other) < 0 end
function Time:after(other) return compare(self, other) > 0 end
function Time:equal(other) return compare(self, other) == 0 end
function time_meta.__eq(a, b) return compare(a, b) == 0 end
function time_meta.__lt(a, b) return compare(a, b) < 0 end
function time_meta.__le(a, b) return compare(a, b) <= 0 end

local function whole(value, name)
    expect(type(value) == "number" and value == value and value > -huge and value < huge, name .. ": expected a number")
    return floor(value)
end

-- Components of any size to an instant: month 13 is January of the next year, day 0 the last of the month before.
local function instant(year, month, day, hour, minute, second, ns, location)
    expect(year > -MAX_YEAR and year < MAX_YEAR and month > -MAX_YEAR and month < MAX_YEAR, "date: year out of range")
    local seconds = days_of(year, month, day) * DAY + hour * 3600 + minute * 60 + second
    expect(seconds > -4e15 and seconds < 4e15, "date: out of range")
    return shifted(instant_of(seconds, location), ns, location)
end

function Time:add_date(years, months, days)
    local year, month, day = self:date()
    local hour, minute, second = self:clock()
    years, months, days = whole(years or 0, "add_date"), whole(months or 0, "add_date"), whole(days or 0, "add_date")
    return instant(year + years, month + months, day + days, hour, minute, second, self._ns, self._location)
end

-- Nanoseconds since the year 1 modulo `ns`: bit by bit, because they don't fit 64 bits.
local function remainder(self, ns)
    local seconds = self._seconds - YEAR_ONE
    local left, bit = 0, 1
    while bit * 2 <= seconds do bit = bit * 2 end
    local step = SECOND % ns
    while bit >= 1 do
        left = (left * 2) % ns
        if seconds >= bit then
            seconds = seconds - bit
            left = (left + step) % ns
        end
        bit = floor(bit / 2)
    end
    return (left + self._ns % ns) % ns
end

local function rounding_step(duration, name)
    expect(is_duration(duration), name .. ": expected a Duration (see time.parse_duration), got " .. type(duration))
    expect(duration._ns < 2^61, name .. ": the duration is too long")
    return duration._ns
end

function Time:truncate(duration)
    local step = rounding_step(duration, "truncate")
    if step <= 0 or self._seconds < YEAR_ONE then return self end
    return shifted(self._seconds, self._ns - remainder(self, step), self._location)
end

function Time:round(duration)
    local step = rounding_step(duration, "round")
    if step <= 0 or self._seconds < YEAR_ONE then return self end
    local left = remainder(self, step)
    local change = left + left < step and -left or step - left
    return shifted(self._seconds, self._ns + change, self._location)
end

-- Formatting: one writer per element, given what `fields` holds.

local function offset_text(offset, colon, with_seconds, with_minutes)
    local sign = offset < 0 and "-" or "+"
    if offset < 0 then offset = -offset end
    local text = sign .. format("%02d", floor(offset / 3600))
    if with_minutes then text = text .. colon .. format("%02d", floor(offset / 60) % 60) end
    if with_seconds then text = text .. colon .. format("%02d", offset % 60) end
    return text
end

local function year_text(year)
    return year < 0 and format("-%04d", -year) or format("%04d", year)
end

local function hour12(hour)
    return hour % 12 == 0 and 12 or hour % 12
end

local WRITERS = {
    ["2006"] = function(f) return year_text(f.year) end,
    ["06"] = function(f) return format("%02d", f.year % 100) end,
    January = function(f) return MONTHS[f.month] end,
    Jan = function(f) return sub(MONTHS[f.month], 1, 3) end,
    ["1"] = function(f) return format("%d", f.month) end,
    ["01"] = function(f) return format("%02d", f.month) end,
    Monday = function(f) return WEEKDAYS[f.weekday + 1] end,
    Mon = function(f) return sub(WEEKDAYS[f.weekday + 1], 1, 3) end,
    ["2"] = function(f) return format("%d", f.day) end,
    ["_2"] = function(f) return format("%2d", f.day) end,
    ["02"] = function(f) return format("%02d", f.day) end,
    ["__2"] = function(f) return format("%3d", f.year_day) end,
    ["002"] = function(f) return format("%03d", f.year_day) end,
    ["15"] = function(f) return format("%02d", f.hour) end,
    ["3"] = function(f) return format("%d", hour12(f.hour)) end,
    ["03"] = function(f) return format("%02d", hour12(f.hour)) end,
    ["4"] = function(f) return format("%d", f.minute) end,
    ["04"] = function(f) return format("%02d", f.minute) end,
    ["5"] = function(f) return format("%d", f.second) end,
    ["05"] = function(f) return format("%02d", f.second) end,
    PM = function(f) return f.hour >= 12 and "PM" or "AM" end,
    pm = function(f) return f.hour >= 12 and "pm" or "am" end,
    MST = function(f)
        if f.zone ~= "" then return f.zone end
        return offset_text(f.offset, "", false, f.offset % 3600 ~= 0)
    end,
}

local function write_offset(element, fields)
    if byte(element) == 90 and fields.offset == 0 then return "Z" end
    local colon = find(element, ":", 1, true) and ":" or ""
    local digits = #gsub(element, "%D", "")
    return offset_text(fields.offset, colon, digits > 4, digits > 2)
end

local function write_fraction(element, ns)
    local digits = sub(format("%09d", ns), 1, #element - 1)
    if byte(element, 2) == 57 then
        digits = gsub(digits, "0+$", "")
        if digits == "" then return "" end
    end
    if #digits < #element - 1 and byte(element, 2) == 48 then digits = digits .. rep("0", #element - 1 - #digits) end
    return sub(element, 1, 1) .. digits
end

local function fields_of(self)
    local days, seconds, offset, zone = wall(self)
    local year, month, day = date_of(days)
    return {
        year = year, month = month, day = day, offset = offset, zone = zone,
        hour = floor(seconds / 3600), minute = floor(seconds / 60) % 60, second = seconds % 60,
        weekday = (days + 4) % 7, year_day = days - days_of(year, 1, 1) + 1,
    }
end

function Time:format(layout)
    expect(type(layout) == "string", "format: expected a layout, got " .. type(layout))
    local fields, out = fields_of(self), {}
    for _, piece in ipairs(pieces_of(layout)) do
        local element = piece[2]
        out[#out + 1] = piece[1]
        local writer = WRITERS[element]
        if writer then
            out[#out + 1] = writer(fields)
        elseif element then
            local first = byte(element)
            local is_fraction = first == 46 or first == 44
            out[#out + 1] = is_fraction and write_fraction(element, self._ns) or write_offset(element, fields)
        end
    end
    return concat(out)
end

function Time:format_rfc3339() return self:format(LAYOUTS.RFC3339) end
function time_meta.__tostring(self) return self:format("2006-01-02 15:04:05.999999999 -0700 MST") end

-- Parsing: one reader per element; gives the index after what it read and fills `f`, or nil.

local function number_reader(field, pattern, low, high)
    return function(text, at, f)
        local digits = match(text, pattern, at)
        local value = tonumber(digits)
        if not value or value < low or value > high then return nil end
        f[field] = value
        return at + #digits
    end
end

local function name_reader(field, names, length)
    return function(text, at, f)
        for index, name in ipairs(names) do
            name = length and sub(name, 1, length) or name
            if lower(sub(text, at, at + #name - 1)) == lower(name) then
                f[field] = index
                return at + #name
            end
        end
        return nil
    end
end

local function padded(width, reader)
    return function(text, at, f)
        local spaces = match(text, "^ *", at)
        return reader(text, at + (#spaces < width and #spaces or width - 1), f)
    end
end

-- Seconds may carry a fraction that the layout doesn't show.
local function read_seconds(pattern)
    local reader = number_reader("second", pattern, 0, 59)
    return function(text, at, f, following)
        local after = reader(text, at, f)
        local first = following and byte(following)
        if not after or first == 46 or first == 44 then return after end
        local digits = match(text, "^[.,](%d+)", after)
        if not digits then return after end
        f.ns = tonumber(sub(digits .. "00000000", 1, 9))
        return after + 1 + #digits
    end
end

local function read_half_day(am, pm)
    return function(text, at, f)
        local word = sub(text, at, at + 1)
        if word ~= am and word ~= pm then return nil end
        f.half = word == pm and 12 or 0
        return at + 2
    end
end

-- An abbreviation says no offset but for UTC and GMT+n; that of the default zone is used where the names agree.
local function read_zone_name(text, at, f)
    local name = match(text, "^GMT[+-]%d%d?", at) or match(text, "^[+-]%d%d", at) or match(text, "^%u%a%uT?%u?", at)
    if not name then return nil end
    local hours = match(name, "[+-]%d+$")
    if hours and (tonumber(hours) > 23 or tonumber(hours) < -23) then return nil end
    f.zone, f.zone_offset = name, hours and tonumber(hours) * 3600
    return at + #name
end

local READERS = {
    ["2006"] = number_reader("year", "^%d%d%d%d", 0, 9999),
    ["06"] = number_reader("short_year", "^%d%d", 0, 99),
    January = name_reader("month", MONTHS),
    Jan = name_reader("month", MONTHS, 3),
    ["1"] = number_reader("month", "^%d%d?", 1, 12),
    ["01"] = number_reader("month", "^%d%d", 1, 12),
    Monday = name_reader("weekday", WEEKDAYS),
    Mon = name_reader("weekday", WEEKDAYS, 3),
    ["2"] = number_reader("day", "^%d%d?", 1, 31),
    ["_2"] = padded(2, number_reader("day", "^%d%d?", 1, 31)),
    ["02"] = number_reader("day", "^%d%d", 1, 31),
    ["__2"] = padded(3, number_reader("year_day", "^%d%d?%d?", 1, 366)),
    ["002"] = number_reader("year_day", "^%d%d%d", 1, 366),
    ["15"] = number_reader("hour", "^%d%d?", 0, 23),
    ["3"] = number_reader("hour", "^%d%d?", 0, 12),
    ["03"] = number_reader("hour", "^%d%d", 0, 12),
    ["4"] = number_reader("minute", "^%d%d?", 0, 59),
    ["04"] = number_reader("minute", "^%d%d", 0, 59),
    ["5"] = read_seconds("^%d%d?"),
    ["05"] = read_seconds("^%d%d"),
    PM = read_half_day("AM", "PM"),
    pm = read_half_day("am", "pm"),
    MST = read_zone_name,
}

local function read_offset(element, text, at, f)
    if byte(element) == 90 and byte(text, at) == 90 then
        f.offset = 0
        return at + 1
    end
    local pattern = "^([+-])" .. gsub(sub(element, 2), "%d%d", "(%%d%%d)") .. "()"
    local captures = { match(text, pattern, at) }
    if #captures == 0 then return nil end
    local hours, minutes = tonumber(captures[2]), #captures > 3 and tonumber(captures[3]) or 0
    local seconds = #captures > 4 and tonumber(captures[4]) or 0
    if hours > 24 or minutes > 60 or seconds > 60 then return nil end
    f.offset = (hours * 3600 + minutes * 60 + seconds) * (captures[1] == "-" and -1 or 1)
    return captures[#captures]
end

local function read_fraction(element, text, at, f)
    local digits = match(text, "^[.,](%d+)", at)
    if byte(element, 2) == 57 then
        if not digits then return at end
    elseif not digits or #digits < #element - 1 then
        return nil
    else
        digits = sub(digits, 1, #element - 1)
    end
    f.ns = tonumber(sub(digits .. "00000000", 1, 9))
    return at + 1 + #digits
end

-- A literal of a layout; a run of spaces in it stands for a run of any length.
local function skip_literal(literal, text, at)
    for run, spaces in string.gmatch(literal, "([^ ]*)( *)") do
        if sub(text, at, at + #run - 1) ~= run then return nil end
        at = at + #run
        if spaces ~= "" then
            if at <= #text and byte(text, at) ~= 32 then return nil end
            at = find(text, "[^ ]", at) or #text + 1
        end
    end
    return at
end

local function read_fields(layout, text)
    local f, at = { ns = 0 }, 1
    local pieces = pieces_of(layout)
    for index, piece in ipairs(pieces) do
        local literal, element = piece[1], piece[2]
        local after = skip_literal(literal, text, at)
        if not after then return nil, format("expected %q at %q", literal, sub(text, at, at + 20)) end
        at = after
        if element then
            local reader, first = READERS[element], byte(element)
            if reader then
                local following = pieces[index + 1]
                after = reader(text, at, f, following[1] == "" and following[2] or nil)
            elseif first == 46 or first == 44 then
                after = read_fraction(element, text, at, f)
            else
                after = read_offset(element, text, at, f)
            end
            if not after then return nil, format("%q does not fit %q", sub(text, at, at + 20), element) end
            at = after
        end
    end
    if at <= #text then return nil, format("unexpected text %q", sub(text, at, at + 20)) end
    return f
end

local function complete(f)
    if f.short_year then f.year = f.short_year + (f.short_year >= 69 and 1900 or 2000) end
    f.year = f.year or 0
    if f.half then
        if f.half == 12 and (f.hour or 0) < 12 then f.hour = (f.hour or 0) + 12 end
        if f.half == 0 and f.hour == 12 then f.hour = 0 end
    end
    if f.year_day then
        local year, month, day = date_of(days_of(f.year, 1, 1) + f.year_day - 1)
        if year ~= f.year or (f.month and f.month ~= month) or (f.day and f.day ~= day) then
            return "the day of the year does not fit the date"
        end
        f.month, f.day = month, day
    end
    f.month, f.day = f.month or 1, f.day or 1
    if f.day > days_in(f.year, f.month) then return format("%s has no day %d", MONTHS[f.month], f.day) end
    return nil
end

local function instant_of_fields(f, location)
    local seconds = (f.hour or 0) * 3600 + (f.minute or 0) * 60 + (f.second or 0)
    seconds = seconds + days_of(f.year, f.month, f.day) * DAY
    if f.offset then
        local at = seconds - f.offset
        if f.offset == 0 and (not f.zone or f.zone == "UTC") then return new_time(at, f.ns, UTC) end
        local offset, name = zone_at(location, at)
        if offset == f.offset and (not f.zone or f.zone == name) then return new_time(at, f.ns, location) end
        return new_time(at, f.ns, new_location(f.zone or "", f.offset))
    end
    if f.zone and f.zone ~= "UTC" then
        local at = instant_of(seconds, location)
        local _, name = zone_at(location, at)
        if name == f.zone then return new_time(at, f.ns, location) end
        local offset = f.zone_offset or 0
        return new_time(seconds - offset, f.ns, new_location(f.zone, offset))
    end
    if f.zone then return new_time(seconds, f.ns, UTC) end
    return new_time(instant_of(seconds, location), f.ns, location)
end

local UTC_NAMES = { UTC = true, GMT = true, ["ETC/UTC"] = true, ["ETC/GMT"] = true, ZULU = true }

local named = {} -- zones of the database that a process of this VM has asked for

local function zone_named(name)
    if named[name] then return named[name] end
    local plain = upper(name)
    if UTC_NAMES[plain] then return UTC end
    if name == "Local" then return LOCAL end
    local sign, hours, minutes = match(plain, "^UTC([+-])(%d%d?):?(%d*)$")
    if not sign then
        sign, hours, minutes = match(plain, "^([+-])(%d%d):?(%d*)$")
    end
    if not sign or (minutes ~= "" and #minutes ~= 2) then return nil end
    local offset = tonumber(hours) * 3600 + (tonumber(minutes) or 0) * 60
    return new_location(name, sign == "-" and -offset or offset)
end

return function(env)
    local errors, now_ns = env.errors, env.now_ns

    local function failed(message, kind)
        return nil, errors.new({ message = message, kind = kind, retryable = false })
    end

    local time = {
        NANOSECOND = 1, MICROSECOND = 1000, MILLISECOND = 1000000, SECOND = SECOND, MINUTE = MINUTE, HOUR = HOUR,
        utc = UTC, localtz = LOCAL,
    }
    for name, layout in pairs(LAYOUTS) do time[name] = layout end
    for index, name in ipairs(MONTHS) do time[upper(name)] = index end
    for index, name in ipairs(WEEKDAYS) do time[upper(name)] = index - 1 end

    local function to_ns(duration)
        local ns, reason = read_duration(duration)
        if ns then return ns end
        return failed(reason, errors.INVALID)
    end

    function time.now()
        return shifted(0, now_ns(), LOCAL)
    end

    function time.date(year, month, day, hour, minute, second, ns, location)
        expect(location == nil or is_location(location), "date: expected a Location as 8th argument")
        return instant(
            whole(year, "year"), whole(month or 1, "month"), whole(day or 1, "day"), whole(hour or 0, "hour"),
            whole(minute or 0, "minute"), whole(second or 0, "second"), whole(ns or 0, "nanosecond"), location or LOCAL
        )
    end

    function time.unix(seconds, ns)
        return shifted(whole(seconds, "unix"), whole(ns or 0, "unix"), LOCAL)
    end

    function time.parse(layout, text, location)
        expect(type(layout) == "string" and type(text) == "string", "parse: expected a layout and a text")
        expect(location == nil or is_location(location), "parse: expected a Location as 3rd argument")
        local fields, reason = read_fields(layout, text)
        reason = reason or complete(fields)
        if reason then
            return failed(format("cannot read time %q as %q: %s", sub(text, 1, 60), layout, reason), errors.INVALID)
        end
        return instant_of_fields(fields, location or UTC)
    end

    function time.parse_duration(value)
        local ns, err = to_ns(value)
        if err then return nil, err end
        return new_duration(ns)
    end

    function time.fixed_zone(name, offset)
        expect(type(name) == "string", "fixed_zone: expected a name, got " .. type(name))
        return new_location(name, whole(offset, "fixed_zone"))
    end

    function time.load_location(name)
        if type(name) ~= "string" or name == "" then
            return failed("load_location: expected the name of a time zone, like \"Europe/London\"", errors.INVALID)
        end
        local location = zone_named(name)
        if location then return location end
        local changes, err = env.call("time", "zone", name)
        if not changes then return nil, err end
        named[name] = new_location(name, nil, changes)
        return named[name]
    end

    -- A location as plain data, for a VM elsewhere, and the location of such data.
    function time.pack_zone(location)
        if location == UTC then return "UTC" end
        if location == LOCAL then return "Local" end
        local zone = zones[location]
        return { name = zone.name, offset = zone.offset, changes = zone.changes }
    end

    function time.unpack_zone(packed)
        if packed == "UTC" then return UTC end
        if packed == "Local" then return LOCAL end
        local location = packed.changes and named[packed.name] or new_location(packed.name, packed.offset, packed.changes)
        if packed.changes then named[packed.name] = location end
        return location
    end

    time.to_ns = to_ns
    return time
end
