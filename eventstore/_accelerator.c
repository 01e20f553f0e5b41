/* The two hottest loops of a worker in C: records to cells, and cells to the wire and its answers back.
 *
 * Optional. The specification is the Python beside it: `eventstore.ingest.express` for `take_plain`,
 * `eventstore.store.lane.frames` for `wire` and `acknowledged`; property tests hold that both give the same bytes. This file
 * decides nothing on its own: a record that is not *plainly* sound is left to Python, which accepts it or says what is wrong.
 * So the rule when it is changed is: in doubt, leave the record alone.
 *
 * Plain means: an object of the envelope's fields, each once, without escapes in its names and texts; a sender and an event name
 * that have passed by the book before; a message id that is a UUID; a time in whole or RFC 3339 digits inside the accepted range;
 * `properties` and `context` objects of strict JSON in whole UTF-8, no deeper than is allowed.
 *
 * Memory: every scan runs over the bytes of one `bytes` object, which Python ends with a zero. A zero is no part of any JSON token,
 * so a scan that looks at its bytes one after the other stops there at the latest; whatever looks further ahead asks for the room.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef unsigned char u8;

static PyObject *s_cell, *s_cells, *s_destination, *s_end_ms, *s_floor, *s_groups, *s_has_rules, *s_of,
    *s_retention_seconds, *s_start_ms, *s_tier, *s_turn_to;
/* Names of the attributes that are read, interned once. */

/* ------------------------------------------------------------------------------------------------------------------- bytes */

static u8 *put16(u8 *to, uint32_t value)
{
    to[0] = (u8)(value >> 8);
    to[1] = (u8)value;
    return to + 2;
}

static u8 *put32(u8 *to, uint32_t value)
{
    return put16(put16(to, value >> 16), value & 0xFFFF);
}

static u8 *put64(u8 *to, uint64_t value)
{
    return put32(put32(to, (uint32_t)(value >> 32)), (uint32_t)value);
}

static u8 *put(u8 *to, const void *from, size_t length)
{
    memcpy(to, from, length);
    return to + length;
}

static uint32_t get32(const u8 *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* -------------------------------------------------------------------------------------------------------------------- JSON */

static const u8 *skip_space(const u8 *at)
{
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
    return at;
}

static int is_digit(u8 byte)
{
    return byte >= '0' && byte <= '9';
}

static int hex_value(u8 byte)
{
    if (is_digit(byte))
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static int is_continuation(u8 byte)
{
    return (byte & 0xC0) == 0x80;
}

/* The bytes that one character beyond ASCII takes, by the table of RFC 3629; 0 if it is none. */
static int utf8_length(const u8 *at)
{
    u8 lead = at[0], next = at[1];
    if (lead >= 0xC2 && lead <= 0xDF)
        return is_continuation(next) ? 2 : 0;
    if (lead >= 0xE0 && lead <= 0xEF) {
        u8 least = lead == 0xE0 ? 0xA0 : 0x80, most = lead == 0xED ? 0x9F : 0xBF;
        return next >= least && next <= most && is_continuation(at[2]) ? 3 : 0;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        u8 least = lead == 0xF0 ? 0x90 : 0x80, most = lead == 0xF4 ? 0x8F : 0xBF;
        return next >= least && next <= most && is_continuation(at[2]) && is_continuation(at[3]) ? 4 : 0;
    }
    return 0;
}

/* The UTF-16 unit of an escape's four hexadecimal digits; -1 if they are none. */
static int escaped_unit(const u8 *at)
{
    int unit = 0;
    for (int n = 0; n < 4; n++) {
        int value = hex_value(at[n]);
        if (value < 0)
            return -1;
        unit = unit << 4 | value;
    }
    return unit;
}

/* Past the escape at a backslash; NULL for one that is unknown, or half of a surrogate pair. */
static const u8 *skip_escape(const u8 *at)
{
    int unit;
    switch (at[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return at + 2;
    case 'u':
        unit = escaped_unit(at + 2);
        if (unit < 0 || (unit & 0xFC00) == 0xDC00)
            return NULL;
        if ((unit & 0xFC00) != 0xD800)
            return at + 6;
        if (at[6] != '\\' || at[7] != 'u')
            return NULL;
        unit = escaped_unit(at + 8);
        return unit >= 0 && (unit & 0xFC00) == 0xDC00 ? at + 12 : NULL;
    default:
        return NULL;
    }
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* How many of the eight bytes at `at` are plain text: ASCII, no quote, no backslash, no control character.
 * A byte below another in the word is marked rightly whatever stands above it, and the lowest mark is what counts. */
static int plain_bytes(const u8 *at)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t word, quote, backslash, marks;
    memcpy(&word, at, 8);
    quote = word ^ EACH('"');
    backslash = word ^ EACH('\\');
    marks = ((word - EACH(0x20)) & ~word) | ((quote - EACH(1)) & ~quote) | ((backslash - EACH(1)) & ~backslash) | word;
    marks &= EACH(0x80);
    return marks ? __builtin_ctzll(marks) >> 3 : 8;
#else
    int count = 0;
    while (count < 8 && at[count] >= 0x20 && at[count] < 0x80 && at[count] != '"' && at[count] != '\\')
        count++;
    return count;
#endif
}

/* The closing quote of the string whose first byte is `at`; NULL if it is not whole. `escaped` tells of backslashes. */
static const u8 *string_end(const u8 *at, const u8 *end, int *escaped)
{
    for (;;) {
        while (end - at >= 8) {
            int count = plain_bytes(at);
            at += count;
            if (count < 8)
                break;
        }
        if (*at == '"')
            return at;
        if (*at == '\\') {
            *escaped = 1;
            if ((at = skip_escape(at)) == NULL)
                return NULL;
        } else if (*at >= 0x80) {
            int length = utf8_length(at);
            if (length == 0)
                return NULL;
            at += length;
        } else if (*at < 0x20) {
            return NULL;
        } else {
            at++;
        }
    }
}

static const u8 *skip_digits(const u8 *at)
{
    if (!is_digit(*at))
        return NULL;
    while (is_digit(*at))
        at++;
    return at;
}

static const u8 *number_end(const u8 *at)
{
    if (*at == '-')
        at++;
    at = *at == '0' ? at + 1 : skip_digits(at);
    if (at != NULL && *at == '.')
        at = skip_digits(at + 1);
    if (at != NULL && (*at == 'e' || *at == 'E')) {
        at++;
        if (*at == '+' || *at == '-')
            at++;
        at = skip_digits(at);
    }
    return at;
}

static const u8 *word_end(const u8 *at, const u8 *end, const char *word, size_t length)
{
    return (size_t)(end - at) >= length && memcmp(at, word, length) == 0 ? at + length : NULL;
}

/* Objects and arrays in a plain record. Beyond, the book decides: it knows how many are allowed, which is more. */
#define PLAIN_CONTAINERS 1000

/* Past the object that begins at `at`: strict JSON in whole UTF-8, at most `deepest` (below 64) levels; else NULL. */
static const u8 *object_end(const u8 *at, const u8 *end, int deepest)
{
    uint64_t objects = 0; /* a bit a level, the innermost lowest: whether it is an object or an array */
    int depth = 0, containers = 0, escaped;

    if (*at != '{')
        return NULL;
open:
    if (++depth > deepest || ++containers > PLAIN_CONTAINERS)
        return NULL;
    objects = objects << 1 | (*at == '{');
    at = skip_space(at + 1);
    if (*at == (objects & 1 ? '}' : ']'))
        goto close;
member:
    if (objects & 1) {
        if (*at != '"' || (at = string_end(at + 1, end, &escaped)) == NULL)
            return NULL;
        at = skip_space(at + 1);
        if (*at != ':')
            return NULL;
        at = skip_space(at + 1);
    }
    switch (*at) {
    case '"':
        at = string_end(at + 1, end, &escaped);
        if (at != NULL)
            at++;
        break;
    case '{': case '[':
        goto open;
    case 't':
        at = word_end(at, end, "true", 4);
        break;
    case 'f':
        at = word_end(at, end, "false", 5);
        break;
    case 'n':
        at = word_end(at, end, "null", 4);
        break;
    default:
        at = number_end(at);
    }
    if (at == NULL)
        return NULL;
next:
    at = skip_space(at);
    if (*at == ',') {
        at = skip_space(at + 1);
        goto member;
    }
    if (*at != (objects & 1 ? '}' : ']'))
        return NULL;
close:
    at++;
    objects >>= 1;
    if (--depth > 0)
        goto next;
    return at;
}

/* -------------------------------------------------------------------------------------------------------------- timestamps */

#define MICROS INT64_C(1000000)

/* The number that `count` digits spell; -1 if they are none. */
static int digits(const u8 *at, int count)
{
    int value = 0;
    for (int n = 0; n < count; n++) {
        if (!is_digit(at[n]))
            return -1;
        value = value * 10 + (at[n] - '0');
    }
    return value;
}

/* Days from 1970-01-01 to a day of the Gregorian calendar from then on; -1 if there is no such day. */
static int64_t days_since_epoch(int year, int month, int day)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 1970 || month < 1 || month > 12 || day < 1)
        return -1;
    if (day > before[month] - before[month - 1] + (leap && month == 2))
        return -1;
    int past = year - 1; /* leap days up to the end of the year before; 477 of them came before 1970 */
    int64_t leap_days = past / 4 - past / 100 + past / 400 - 477;
    return (int64_t)(year - 1970) * 365 + leap_days + before[month - 1] + (leap && month > 2) + day - 1;
}

/* Past an RFC 3339 time in quotes, of at most six digits of a second; NULL for any other spelling. */
static const u8 *rfc3339_end(const u8 *at, const u8 *end, int64_t *micros)
{
    int64_t days, fraction = 0, offset = 0;
    int hour, minute, second;

    if (end - at < 22 || at[5] != '-' || at[8] != '-' || at[11] != 'T' || at[14] != ':' || at[17] != ':')
        return NULL;
    days = days_since_epoch(digits(at + 1, 4), digits(at + 6, 2), digits(at + 9, 2));
    hour = digits(at + 12, 2);
    minute = digits(at + 15, 2);
    second = digits(at + 18, 2);
    if (days < 0 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
        return NULL;
    at += 20;
    if (*at == '.') {
        int64_t worth = MICROS;
        const u8 *first = ++at;
        for (; is_digit(*at); at++) {
            worth /= 10;
            fraction += worth * (*at - '0');
        }
        if (at == first || at - first > 6)
            return NULL;
    }
    if (*at == '+' || *at == '-') {
        if (end - at < 7 || at[3] != ':')
            return NULL;
        int hours = digits(at + 1, 2), minutes = digits(at + 4, 2);
        if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59)
            return NULL;
        offset = (hours * 60 + minutes) * (*at == '+' ? 60 : -60);
        at += 6;
    } else if (*at++ != 'Z') {
        return NULL;
    }
    *micros = (days * 86400 + hour * 3600 + minute * 60 + second - offset) * MICROS + fraction;
    return *at == '"' ? at + 1 : NULL;
}

/* Past the whole number of milliseconds at `at`; NULL for what is none, or has more digits than a time. */
static const u8 *millis_end(const u8 *at, int64_t *micros)
{
    const u8 *past = skip_digits(at);
    int64_t millis = 0;
    if (past == NULL || past - at > 15 || (*at == '0' && past - at > 1) || *past == '.' || *past == 'e' || *past == 'E')
        return NULL;
    for (; at < past; at++)
        millis = millis * 10 + (*at - '0');
    *micros = millis * 1000;
    return past;
}

/* -------------------------------------------------------------------------------------------------------------------- UUID */

/* Past a UUID in quotes, written 8-4-4-4-12; else NULL. */
static const u8 *uuid_end(const u8 *at, const u8 *end, u8 *into)
{
    if (end - at < 38 || at[0] != '"' || at[37] != '"' || at[9] != '-' || at[14] != '-' || at[19] != '-' || at[24] != '-')
        return NULL;
    for (int n = 1; n < 37; n += 2) {
        if (n == 9 || n == 14 || n == 19 || n == 24)
            n++;
        int high = hex_value(at[n]), low = hex_value(at[n + 1]);
        if (high < 0 || low < 0)
            return NULL;
        *into++ = (u8)(high << 4 | low);
    }
    return at + 38;
}

/* ---------------------------------------------------------------------------------------------------------------- envelope */

typedef struct {
    const u8 *at;
    Py_ssize_t length;
} Span;

typedef struct {
    Span event, properties, context;
    u8 eid[16];
    int64_t micros;
} Envelope;

enum { TENANT = 1, UID = 2, EVENT = 4, MESSAGE_ID = 8, TIMESTAMP = 16, REQUIRED = 31, PROPERTIES = 32, CONTEXT = 64 };

/* The field whose name, of `length` bytes, stands at `at`; 0 for none. */
static int field_of(const u8 *at, Py_ssize_t length)
{
#define NAMED(name, field) if (length == sizeof(name) - 1 && memcmp(at, name, sizeof(name) - 1) == 0) return field
    NAMED("tenant", TENANT);
    NAMED("uid", UID);
    NAMED("event", EVENT);
    NAMED("message_id", MESSAGE_ID);
    NAMED("timestamp", TIMESTAMP);
    NAMED("properties", PROPERTIES);
    NAMED("context", CONTEXT);
#undef NAMED
    return 0;
}

/* Past a text without escapes; NULL for anything else. */
static const u8 *text_end(const u8 *at, const u8 *end, Span *text)
{
    int escaped = 0;
    const u8 *quote = *at == '"' ? string_end(at + 1, end, &escaped) : NULL;
    if (quote == NULL || escaped)
        return NULL;
    text->at = at + 1;
    text->length = quote - at - 1;
    return quote + 1;
}

static int is_same(Span found, Span expected)
{
    return found.length == expected.length && memcmp(found.at, expected.at, (size_t)found.length) == 0;
}

/* Whether the record is plain, as far as its bytes tell, and of this sender. */
static int read_envelope(const u8 *at, const u8 *end, Span tenant, Span uid, int deepest, Envelope *found)
{
    static const u8 nothing[] = "{}";
    int seen = 0;

    found->properties = found->context = (Span){nothing, 2};
    at = skip_space(at);
    if (*at != '{')
        return 0;
    do {
        Span text;
        int field;
        at = text_end(skip_space(at + 1), end, &text);
        if (at == NULL || (field = field_of(text.at, text.length)) == 0 || seen & field)
            return 0;
        seen |= field;
        at = skip_space(at);
        if (*at != ':')
            return 0;
        at = skip_space(at + 1);
        const u8 *start = at;
        switch (field) {
        case TENANT:
            at = text_end(at, end, &text);
            if (at != NULL && !is_same(text, tenant))
                return 0;
            break;
        case UID:
            at = text_end(at, end, &text);
            if (at != NULL && !is_same(text, uid))
                return 0;
            break;
        case EVENT:
            at = text_end(at, end, &found->event);
            break;
        case MESSAGE_ID:
            at = uuid_end(at, end, found->eid);
            break;
        case TIMESTAMP:
            at = *at == '"' ? rfc3339_end(at, end, &found->micros) : millis_end(at, &found->micros);
            break;
        case PROPERTIES:
            if ((at = object_end(at, end, deepest)) != NULL)
                found->properties = (Span){start, at - start};
            break;
        default:
            if ((at = object_end(at, end, deepest)) != NULL)
                found->context = (Span){start, at - start};
        }
        if (at == NULL)
            return 0;
        at = skip_space(at);
    } while (*at == ',');
    return *at == '}' && skip_space(at + 1) == end && (seen & REQUIRED) == REQUIRED;
}

/* --------------------------------------------------------------------------------------------------------------- take_plain */

/* A destination with the bucket it has at hand. */
typedef struct {
    PyObject *destination, *cell, *groups;
    int64_t start_ms, end_ms;
} Place;

#define PLACES 8

typedef struct {
    PyObject *names, *check;
    int64_t now, late_from, latest;
    Py_ssize_t most_bytes;
    int deepest;
    Place places[PLACES]; /* more tiers than that in one chunk only take turns */
    int used, next;
    Span name; /* the last event name that was found among `names`; its bytes live as long as the values */
} Sorting;

enum { FAILED = -1, LEFT = 0, TAKEN = 1 };

static int long_attribute(PyObject *of, PyObject *name, int64_t *value)
{
    PyObject *found = PyObject_GetAttr(of, name);
    if (found == NULL)
        return -1;
    *value = PyLong_AsLongLong(found);
    Py_DECREF(found);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

static void forget_place(Place *place)
{
    Py_CLEAR(place->destination);
    Py_CLEAR(place->cell);
    Py_CLEAR(place->groups);
}

/* Keep the bucket that a destination has at hand now. */
static int fill_place(Place *place, PyObject *destination, PyObject *bucket)
{
    PyObject *cell = PyObject_GetAttr(bucket, s_cell), *groups = PyObject_GetAttr(bucket, s_groups);
    if (cell == NULL || groups == NULL || !PyBytes_Check(cell) || !PyDict_Check(groups)
        || long_attribute(bucket, s_start_ms, &place->start_ms) < 0 || long_attribute(bucket, s_end_ms, &place->end_ms) < 0) {
        Py_XDECREF(cell);
        Py_XDECREF(groups);
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "expected a bucket with a cell of bytes and groups in a dict");
        return -1;
    }
    forget_place(place);
    place->destination = Py_NewRef(destination);
    place->cell = cell;
    place->groups = groups;
    return 0;
}

/* The place of an event time; NULL with an exception set. */
static Place *place_of(Sorting *sorting, PyObject *destination, int64_t ts_ms)
{
    Place *place = NULL;
    for (int n = 0; n < sorting->used && place == NULL; n++)
        if (sorting->places[n].destination == destination)
            place = &sorting->places[n];
    if (place == NULL) {
        place = &sorting->places[sorting->next];
        sorting->next = (sorting->next + 1) % PLACES;
        if (sorting->used < PLACES)
            sorting->used++;
    } else if (place->start_ms <= ts_ms && ts_ms < place->end_ms) {
        return place;
    }
    PyObject *moment = PyLong_FromLongLong(ts_ms);
    PyObject *bucket = moment == NULL ? NULL : PyObject_CallMethodOneArg(destination, s_turn_to, moment);
    int failed = bucket == NULL || fill_place(place, destination, bucket) < 0;
    Py_XDECREF(moment);
    Py_XDECREF(bucket);
    return failed ? NULL : place;
}

/* Whether the book has let this event name pass before: 1, 0, or -1 with an exception set. */
static int is_known(Sorting *sorting, Span event)
{
    if (is_same(event, sorting->name))
        return 1;
    PyObject *name = PyUnicode_DecodeUTF8((const char *)event.at, event.length, NULL);
    int known = name == NULL ? -1 : PyDict_Contains(sorting->names, name);
    Py_XDECREF(name);
    if (known == 1)
        sorting->name = event;
    return known;
}

/* Whether the tenant's own rules let the event pass: 1, 0, or -1 with an exception set. */
static int keeps_rules(Sorting *sorting, PyObject *sender, const Envelope *found)
{
    PyObject *tenant = PyObject_GetAttr(sender, s_of);
    PyObject *event = PyUnicode_DecodeUTF8((const char *)found->event.at, found->event.length, NULL);
    PyObject *properties = PyBytes_FromStringAndSize((const char *)found->properties.at, found->properties.length);
    PyObject *wrong = NULL;
    if (tenant != NULL && event != NULL && properties != NULL)
        wrong = PyObject_CallFunctionObjArgs(sorting->check, event, properties, tenant, NULL);
    int passes = wrong == NULL ? -1 : wrong == Py_None;
    Py_XDECREF(tenant);
    Py_XDECREF(event);
    Py_XDECREF(properties);
    Py_XDECREF(wrong);
    return passes;
}

/* Seconds that a late row has left to live, 0 for none; -1 with an exception set. */
static int64_t time_to_live(Sorting *sorting, PyObject *destination, int64_t micros)
{
    int64_t retention;
    PyObject *tier = PyObject_GetAttr(destination, s_tier);
    if (tier == NULL || long_attribute(tier, s_retention_seconds, &retention) < 0) {
        Py_XDECREF(tier);
        return -1;
    }
    Py_DECREF(tier);
    int64_t left = retention - (sorting->now - micros) / MICROS; /* late: the difference is not negative */
    return left > 0 && left <= INT32_MAX ? left : 0;
}

/* The cells of `eventstore.events.cells`. */
static PyObject *cells_of(PyObject *sender_cells, PyObject *bucket_cell, const Envelope *found, int64_t ttl)
{
    Py_ssize_t sender_length = PyBytes_GET_SIZE(sender_cells), bucket_length = PyBytes_GET_SIZE(bucket_cell);
    Py_ssize_t length = 2 + sender_length + bucket_length + 8 + 4 + 16 + 4 + found->event.length + 4 + found->properties.length
        + 4 + found->context.length + 12 + (ttl ? 8 : 0);
    PyObject *cells = PyBytes_FromStringAndSize(NULL, length);
    if (cells == NULL)
        return NULL;
    u8 *to = (u8 *)PyBytes_AS_STRING(cells);
    to = put16(to, ttl ? 10 : 9);
    to = put(to, PyBytes_AS_STRING(sender_cells), (size_t)sender_length);
    to = put(to, PyBytes_AS_STRING(bucket_cell), (size_t)bucket_length);
    to = put64(to, (uint64_t)(found->micros / 1000));
    to = put32(to, 16);
    to = put(to, found->eid, 16);
    to = put32(to, (uint32_t)found->event.length);
    to = put(to, found->event.at, (size_t)found->event.length);
    to = put32(to, (uint32_t)found->properties.length);
    to = put(to, found->properties.at, (size_t)found->properties.length);
    to = put32(to, (uint32_t)found->context.length);
    to = put(to, found->context.at, (size_t)found->context.length);
    to = put32(to, 8);
    to = put64(to, (uint64_t)found->micros);
    if (ttl) {
        to = put32(to, 4);
        put32(to, (uint32_t)ttl);
    }
    return cells;
}

/* Steals the cells. */
static int add_to_group(PyObject *groups, PyObject *key, PyObject *cells)
{
    PyObject *rows = PyDict_GetItemWithError(groups, key);
    int failed;
    if (rows != NULL) {
        failed = PyList_Append(rows, cells);
    } else if (PyErr_Occurred() || (rows = PyList_New(1)) == NULL) {
        failed = -1;
    } else {
        PyList_SET_ITEM(rows, 0, Py_NewRef(cells));
        failed = PyDict_SetItem(groups, key, rows);
        Py_DECREF(rows);
    }
    Py_DECREF(cells);
    return failed;
}

static int take_record(Sorting *sorting, PyObject *sender, PyObject *key, PyObject *value, PyObject *cells)
{
    const u8 *at = (const u8 *)PyBytes_AS_STRING(value), *end = at + PyBytes_GET_SIZE(value);
    const u8 *known = (const u8 *)PyBytes_AS_STRING(cells);
    Span uid = {known + 4, (Py_ssize_t)get32(known)};
    Span tenant = {uid.at + uid.length + 4, (Py_ssize_t)get32(uid.at + uid.length)};
    Envelope found;
    int64_t floor, ttl = 0, rules;
    int passes;

    if (end - at > sorting->most_bytes || !read_envelope(at, end, tenant, uid, sorting->deepest, &found))
        return LEFT;
    if (found.micros < 0 || found.micros > sorting->latest)
        return LEFT;
    if (long_attribute(sender, s_floor, &floor) < 0)
        return FAILED;
    if (found.micros <= floor)
        return LEFT;
    if ((passes = is_known(sorting, found.event)) != 1)
        return passes;
    if (long_attribute(sender, s_has_rules, &rules) < 0)
        return FAILED;
    if (rules && (passes = keeps_rules(sorting, sender, &found)) != 1)
        return passes;
    PyObject *destination = PyObject_GetAttr(sender, s_destination);
    if (destination == NULL)
        return FAILED;
    if (found.micros <= sorting->late_from && (ttl = time_to_live(sorting, destination, found.micros)) <= 0) {
        Py_DECREF(destination);
        return (int)ttl; /* expired (0) is for Python to count */
    }
    Place *place = place_of(sorting, destination, found.micros / 1000);
    Py_DECREF(destination);
    if (place == NULL)
        return FAILED;
    PyObject *row = cells_of(cells, place->cell, &found, ttl);
    return row != NULL && add_to_group(place->groups, key, row) == 0 ? TAKEN : FAILED;
}

PyDoc_STRVAR(take_plain_doc,
"take_plain(keys, values, senders, names, check, clock, limits) -> list[int]\n\n"
"Put the cells of every plain record into the groups of its sender's bucket; the positions of all others come back.\n\n"
"keys, values: lists of bytes or None. senders: by key. names: a dict of event names.\n"
"check: what a sender with rules asks: (event, properties, tenant) -> None if they are kept.\n"
"clock: (now, late_from, latest) in microseconds. limits: (most bytes of a record, deepest nesting).");

static PyObject *take_plain(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *keys, *values, *senders;
    Sorting sorting = {0};
    long long now, late_from, latest;
    if (!PyArg_ParseTuple(arguments, "O!O!O!O!O(LLL)(ni)", &PyList_Type, &keys, &PyList_Type, &values, &PyDict_Type, &senders,
                          &PyDict_Type, &sorting.names, &sorting.check, &now, &late_from, &latest, &sorting.most_bytes,
                          &sorting.deepest))
        return NULL;
    sorting.now = now;
    sorting.late_from = late_from;
    sorting.latest = latest;
    sorting.name.length = -1;
    if (sorting.deepest > 63 || PyList_GET_SIZE(keys) != PyList_GET_SIZE(values)) {
        PyErr_SetString(PyExc_ValueError, "expected as many keys as values, and a nesting of at most 63");
        return NULL;
    }
    PyObject *left = PyList_New(0);
    int outcome = left == NULL ? FAILED : LEFT;
    for (Py_ssize_t n = 0; outcome != FAILED && n < PyList_GET_SIZE(keys); n++) {
        PyObject *key = PyList_GET_ITEM(keys, n), *value = PyList_GET_ITEM(values, n);
        PyObject *sender = PyDict_GetItemWithError(senders, key);
        outcome = sender == NULL && PyErr_Occurred() ? FAILED : LEFT;
        if (sender != NULL && PyBytes_Check(value)) {
            Py_INCREF(sender); /* `check` is Python, and could let go of it */
            PyObject *cells = PyObject_GetAttr(sender, s_cells);
            outcome = cells != NULL && PyBytes_Check(cells) ? take_record(&sorting, sender, key, value, cells) : FAILED;
            if (outcome == FAILED && !PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "expected a sender's cells to be bytes");
            Py_XDECREF(cells);
            Py_DECREF(sender);
        }
        if (outcome == LEFT) {
            PyObject *position = PyLong_FromSsize_t(n);
            if (position == NULL || PyList_Append(left, position) < 0)
                outcome = FAILED;
            Py_XDECREF(position);
        }
    }
    for (int n = 0; n < sorting.used; n++)
        forget_place(&sorting.places[n]);
    if (outcome == FAILED)
        Py_CLEAR(left);
    return left;
}

/* -------------------------------------------------------------------------------------------------------------------- frames */

enum { HEADER_BYTES = 9, REQUEST = 0x04, ANSWER = 0x84, RESULT = 0x08, EXECUTE = 0x0A, BATCH = 0x0D, MOST_ROWS = 0xFFFF };
enum { MOST_STATEMENTS = 16 };

typedef struct {
    u8 head[2];
    Span execute, batch;
} Statement;

/* As `Prepared` of `eventstore.store.lane.frames` has them. */
typedef struct {
    Statement statements[MOST_STATEMENTS];
    Span batch_tail;
    int known;
} Spelled;

/* The statement that inserts a row, told by the row's head; NULL: not one of these. */
static const Statement *statement_of(const Spelled *spelled, PyObject *cells)
{
    const char *head = PyBytes_AS_STRING(cells);
    for (int n = 0; n < spelled->known; n++) /* the first are the events' */
        if (memcmp(spelled->statements[n].head, head, 2) == 0)
            return &spelled->statements[n];
    return NULL;
}

static Py_ssize_t body_length(const Spelled *spelled, PyObject *batch)
{
    Py_ssize_t rows = PyList_GET_SIZE(batch), length = rows == 1 ? 0 : 3 + spelled->batch_tail.length;
    for (Py_ssize_t n = 0; n < rows; n++) {
        PyObject *cells = PyList_GET_ITEM(batch, n);
        const Statement *statement = statement_of(spelled, cells);
        length += (rows == 1 ? statement->execute : statement->batch).length + PyBytes_GET_SIZE(cells);
    }
    return length;
}

static u8 *put_frame(u8 *to, const Spelled *spelled, PyObject *batch, uint32_t stream)
{
    Py_ssize_t rows = PyList_GET_SIZE(batch);
    *to++ = REQUEST;
    *to++ = 0;
    to = put16(to, stream);
    *to++ = rows == 1 ? EXECUTE : BATCH;
    to = put32(to, (uint32_t)body_length(spelled, batch));
    if (rows > 1) {
        *to++ = 1; /* unlogged */
        to = put16(to, (uint32_t)rows);
    }
    for (Py_ssize_t n = 0; n < rows; n++) {
        PyObject *cells = PyList_GET_ITEM(batch, n);
        const Statement *statement = statement_of(spelled, cells);
        const Span *before = rows == 1 ? &statement->execute : &statement->batch;
        to = put(to, before->at, (size_t)before->length);
        *to++ = 0; /* the statement's number; behind it the head is the count that the protocol wants */
        to = put(to, PyBytes_AS_STRING(cells) + 1, (size_t)PyBytes_GET_SIZE(cells) - 1);
    }
    return rows == 1 ? to : put(to, spelled->batch_tail.at, (size_t)spelled->batch_tail.length);
}

/* Whether it is a list of 1 to 65,535 rows of cells, each for a known statement. */
static int is_batch(const Spelled *spelled, PyObject *batch)
{
    if (!PyList_Check(batch) || PyList_GET_SIZE(batch) < 1 || PyList_GET_SIZE(batch) > MOST_ROWS)
        return 0;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(batch); n++) {
        PyObject *cells = PyList_GET_ITEM(batch, n);
        if (!PyBytes_Check(cells) || PyBytes_GET_SIZE(cells) < 2 || statement_of(spelled, cells) == NULL)
            return 0;
    }
    return 1;
}

static Span span_of(PyObject *bytes)
{
    return (Span){(const u8 *)PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes)};
}

/* Whether these are a dict of heads to pairs of spellings, and bytes. */
static int read_spelled(PyObject *prepared, Spelled *into)
{
    PyObject *statements, *tail, *head, *pair;
    Py_ssize_t at = 0;
    if (PyTuple_GET_SIZE(prepared) != 2)
        return 0;
    statements = PyTuple_GET_ITEM(prepared, 0);
    tail = PyTuple_GET_ITEM(prepared, 1);
    if (!PyDict_Check(statements) || PyDict_Size(statements) > MOST_STATEMENTS || !PyBytes_Check(tail))
        return 0;
    into->batch_tail = span_of(tail);
    for (into->known = 0; PyDict_Next(statements, &at, &head, &pair); into->known++) {
        Statement *statement = &into->statements[into->known];
        if (!PyBytes_Check(head) || PyBytes_GET_SIZE(head) != 2 || !PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2
            || !PyBytes_Check(PyTuple_GET_ITEM(pair, 0)) || !PyBytes_Check(PyTuple_GET_ITEM(pair, 1)))
            return 0;
        memcpy(statement->head, PyBytes_AS_STRING(head), 2);
        statement->execute = span_of(PyTuple_GET_ITEM(pair, 0));
        statement->batch = span_of(PyTuple_GET_ITEM(pair, 1));
    }
    return 1;
}

PyDoc_STRVAR(wire_doc,
"wire(prepared, batches, streams) -> bytes\n\nThe frames of the batches, each under its stream, one behind the other.");

static PyObject *wire(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *prepared, *batches, *streams;
    Spelled spelled;
    if (!PyArg_ParseTuple(arguments, "O!O!O!", &PyTuple_Type, &prepared, &PyList_Type, &batches, &PyList_Type, &streams))
        return NULL;
    int sound = read_spelled(prepared, &spelled) && PyList_GET_SIZE(batches) == PyList_GET_SIZE(streams);
    Py_ssize_t length = 0;
    for (Py_ssize_t n = 0; sound && n < PyList_GET_SIZE(batches); n++) {
        PyObject *batch = PyList_GET_ITEM(batches, n);
        if ((sound = is_batch(&spelled, batch)))
            length += HEADER_BYTES + body_length(&spelled, batch);
    }
    if (!sound) {
        PyErr_SetString(PyExc_TypeError, "expected spelled statements, lists of cells, and as many streams");
        return NULL;
    }
    PyObject *found = PyBytes_FromStringAndSize(NULL, length);
    u8 *to = found == NULL ? NULL : (u8 *)PyBytes_AS_STRING(found);
    for (Py_ssize_t n = 0; found != NULL && n < PyList_GET_SIZE(batches); n++) {
        long stream = PyLong_AsLong(PyList_GET_ITEM(streams, n)); /* an int has no code of its own to run here */
        if (stream < 0 || stream > INT16_MAX) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "expected streams from 0 to 32767");
            Py_CLEAR(found);
        } else {
            to = put_frame(to, &spelled, PyList_GET_ITEM(batches, n), (uint32_t)stream);
        }
    }
    return found;
}

PyDoc_STRVAR(acknowledged_doc,
"acknowledged(buffer) -> tuple[list[int], int]\n\n"
"The streams of the plain results that the buffer begins with, and where they end.");

static PyObject *acknowledged(PyObject *Py_UNUSED(module), PyObject *buffer)
{
    if (!PyBytes_Check(buffer)) {
        PyErr_SetString(PyExc_TypeError, "expected bytes");
        return NULL;
    }
    const u8 *first = (const u8 *)PyBytes_AS_STRING(buffer), *at = first, *end = first + PyBytes_GET_SIZE(buffer);
    PyObject *streams = PyList_New(0);
    while (streams != NULL && end - at >= HEADER_BYTES && at[0] == ANSWER && at[1] == 0 && at[4] == RESULT) {
        uint32_t length = get32(at + 5);
        if (length > (size_t)(end - at - HEADER_BYTES))
            break;
        PyObject *stream = PyLong_FromLong((int16_t)(at[2] << 8 | at[3]));
        if (stream == NULL || PyList_Append(streams, stream) < 0)
            Py_CLEAR(streams);
        Py_XDECREF(stream);
        at += HEADER_BYTES + length;
    }
    return streams == NULL ? NULL : Py_BuildValue("Nn", streams, (Py_ssize_t)(at - first));
}

/* -------------------------------------------------------------------------------------------------------------------- module */

static PyMethodDef methods[] = {
    {"take_plain", take_plain, METH_VARARGS, take_plain_doc},
    {"wire", wire, METH_VARARGS, wire_doc},
    {"acknowledged", acknowledged, METH_O, acknowledged_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "eventstore._accelerator", "The hot loops in C; see eventstore.accelerator.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__accelerator(void)
{
    struct { PyObject **into; const char *name; } names[] = {
        {&s_cell, "cell"}, {&s_cells, "cells"}, {&s_destination, "destination"},
        {&s_end_ms, "end_ms"}, {&s_floor, "floor"}, {&s_groups, "groups"}, {&s_has_rules, "has_rules"}, {&s_of, "of"},
        {&s_retention_seconds, "retention_seconds"}, {&s_start_ms, "start_ms"}, {&s_tier, "tier"}, {&s_turn_to, "turn_to"},
    };
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        if ((*names[n].into = PyUnicode_InternFromString(names[n].name)) == NULL)
            return NULL;
    return PyModule_Create(&definition);
}
