/* The plain ways of the asyncio pool, compiled: to take a connection that is ready or to queue for one, and to give one
back with which everything is fine.

Why: a task that finds a connection ready waits for nothing, and yet its checkout and return take Python three times as
long as a pool that is compiled; and where tasks queue each hand-over counts (docs/adr/082-a-compiled-pair.md).

What it is: methods that take the place of AsyncPool.connection, Asked.__await__, Asked.__aenter__, AsyncLease.close and
AsyncLease.__aexit__, and the iterator that is awaited.  The objects, their classes and all their fields are defined in
Python, where these methods are written as well (aio_lease.py); `learn` looks up where in an object its fields lie.

Rules:
- It decides nothing.  A connection that is idle, fresh, quiet and clean goes out or lies down; a place in the queue, and
  to whom a connection goes, is the ledger's to say, in Python.  Whatever is not plain is left to Python from the
  beginning: that there is a time-out, another loop, a check, something to be cleaned.
- Until it is known that all is plain, nothing is touched, or it is laid back.
- It keeps no state of its own but what `learn` was told.
- What is read from a field is held for as long as it is used: anything that is called may change the field.
- One interpreter of a process has it; another one, and a build without the GIL, does with Python alone. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <time.h>

#ifdef Py_GIL_DISABLED
#error "made for builds with the GIL; the pool does without it"
#endif

/* ------------------------------------------------------------------ what it knows of Python's objects */

enum {
    POOL_LOOP, POOL_LEDGER, POOL_CLOCK, POOL_IDLE, POOL_TICKETS, POOL_TRACKS, POOL_CHECK_AFTER, POOL_UNCLEAN,
    POOL_READABLE, POOL_LEASE_KIND,
    LEASE_POOL, LEASE_SLOT, LEASE_TIMEOUT, LEASE_CODE, LEASE_INSTRUCTION,
    SLOT_CONN, SLOT_STATE, SLOT_EXPIRES_AT, SLOT_BEST_BEFORE, SLOT_RETURNED_AT, SLOT_LEASED_AT, SLOT_USES, SLOT_BUSY,
    SLOT_CODE, SLOT_INSTRUCTION, SLOT_THREAD_ID,
    TICKET_SLOT, TICKET_WAITER,
    FIELDS
};

/* Names of fields, in the order of the above, behind the class that has them. */
static const struct { const char *owner; const char *name; } field_names[FIELDS] = {
    {"pool", "_loop"}, {"pool", "_ledger"}, {"pool", "_clock"}, {"pool", "_idle"}, {"pool", "_tickets"},
    {"pool", "_tracks"}, {"pool", "_check_after_s"}, {"pool", "_unclean"}, {"pool", "_readable"},
    {"pool", "_lease_kind"},
    {"lease", "_pool"}, {"lease", "_slot"}, {"lease", "_timeout"}, {"lease", "_code"}, {"lease", "_instruction"},
    {"slot", "conn"}, {"slot", "state"}, {"slot", "expires_at"}, {"slot", "best_before"}, {"slot", "returned_at"},
    {"slot", "leased_at"}, {"slot", "uses"}, {"slot", "busy_s"}, {"slot", "code"}, {"slot", "instruction"},
    {"slot", "thread_id"}, {"ticket", "slot"}, {"ticket", "waiter"},
};

/* What `learn` is told, by name. */
enum {
    POOL, LEASE, ASKED, UNTAKEN, SLOT, TICKET, /* classes */
    CONNECTION, TAKE, CLOSE,                   /* what Python has for the methods */
    LEASED, IDLE, QUIET_S, NOTHING,            /* values */
    MONOTONIC, ASYNCIO_LOOP, RUNNING_LOOP, TASK_IN, POP, APPEND,
    TOLD
};
static const char *const told_names[TOLD] = {
    "pool", "lease", "asked", "untaken", "slot", "ticket",
    "connection", "take", "close",
    "leased", "idle", "quiet_s", "nothing",
    "monotonic", "asyncio_loop", "running_loop", "task_in", "pop", "append",
};

static PyObject *told[TOLD];       /* owned; all NULL until `learn` was called */
static Py_ssize_t offsets[FIELDS]; /* of fields in their objects */
static double quiet_s;
static PyObject *lease_kind_seen, *untaken_seen; /* owned, may be NULL: see `become` */
static PyInterpreterState *owner;  /* the interpreter that has it */
static PyObject *one, *no_arguments;

/* Names, interned. */
#define NAMES(each)                                                                                                    \
    each(class_name, "__class__") each(thread_id_name, "_thread_id") each(await_name, "__await__")                     \
    each(close_name, "close") each(take_back_name, "take_back") each(pick_up_name, "pick_up")                          \
    each(deliver_name, "_deliver") each(line_up_name, "_line_up") each(wait_on_name, "_wait_on")                       \
    each(step_out_name, "_step_out")
#define DECLARE(variable, name) static PyObject *variable;
NAMES(DECLARE)

/* Return where in an object a field lies. */
static inline PyObject **
field(PyObject *of, int which)
{
    return (PyObject **)((char *)of + offsets[which]);
}

/* Put a new value, which is given away, into a field. */
static inline void
put(PyObject *of, int which, PyObject *value)
{
    PyObject **place = field(of, which);
    PyObject *old = *place;
    *place = value;
    Py_XDECREF(old);
}

/* Return a field that holds a float; NaN, which compares false with everything, for whatever else it holds. */
static inline double
seconds(PyObject *of, int which)
{
    PyObject *value = *field(of, which);
    return value != NULL && PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : Py_NAN;
}

static inline int
is_a(PyObject *object, int kind)
{
    return told[kind] != NULL && PyObject_TypeCheck(object, (PyTypeObject *)told[kind]);
}

/* ------------------------------------------------------------------ what both ways ask */

enum answer { FAILED = -1, NO = 0, YES = 1 };

#if PY_VERSION_HEX < 0x030C0000
/* Is this one of asyncio's own loops, which know the thread that they run in, and is that this thread? */
static enum answer
runs_here(PyObject *loop)
{
    if (!is_a(loop, ASYNCIO_LOOP)) {
        return NO;
    }
    PyObject *thread = PyObject_GetAttr(loop, thread_id_name);
    if (thread == NULL) {
        return FAILED;
    }
    int here = PyLong_CheckExact(thread) && PyLong_AsUnsignedLong(thread) == PyThread_get_thread_ident();
    Py_DECREF(thread);
    return PyErr_Occurred() ? FAILED : here ? YES : NO;
}
#endif

/* Is all of this on the loop of the pool? */
static enum answer
is_on_loop(PyObject *pool)
{
    PyObject *loop = *field(pool, POOL_LOOP);
    if (loop == NULL || loop == Py_None) {
        return NO;
    }
#if PY_VERSION_HEX < 0x030C0000 /* until then asyncio asks the kernel for the process number each time */
    enum answer known = runs_here(loop);
    if (known != NO) {
        return known;
    }
#endif
    PyObject *running = PyObject_CallNoArgs(told[RUNNING_LOOP]);
    if (running == NULL) {
        return FAILED;
    }
    Py_DECREF(running); /* only compared */
    return running == loop ? YES : NO;
}

/* Read the pool's clock, a new reference; NO: it tells no float. */
static enum answer
read_clock(PyObject *pool, PyObject **now)
{
    PyObject *clock = *field(pool, POOL_CLOCK);
    if (clock == NULL) {
        return NO;
    }
#ifdef __linux__ /* what time.monotonic() does there, to the last bit, without a call of Python's */
    struct timespec read;
    if (clock == told[MONOTONIC] && PyCFunction_CheckExact(clock) && clock_gettime(CLOCK_MONOTONIC, &read) == 0) {
        *now = PyFloat_FromDouble((double)((int64_t)read.tv_sec * 1000000000 + read.tv_nsec) / 1e9);
        return *now == NULL ? FAILED : YES;
    }
#endif
    Py_INCREF(clock);
    *now = PyObject_CallNoArgs(clock);
    Py_DECREF(clock);
    if (*now != NULL && !PyFloat_CheckExact(*now)) {
        Py_CLEAR(*now);
        return NO;
    }
    return *now == NULL ? FAILED : YES;
}

/* Has a driver's question, if there is one, the answer no? */
static enum answer
is_denied(PyObject *question, PyObject *subject)
{
    if (question == NULL) {
        return NO;
    }
    if (question == Py_None) {
        return YES;
    }
    Py_INCREF(question);
    Py_XINCREF(subject);
    PyObject *answer = subject == NULL ? NULL : PyObject_CallOneArg(question, subject);
    Py_XDECREF(subject);
    Py_DECREF(question);
    if (answer == NULL) {
        return FAILED;
    }
    int truth = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return truth < 0 ? FAILED : truth ? NO : YES;
}

/* Lay a slot, which is given away, back where it was, whatever error there is already. */
static void
lay_back(PyObject *idle, PyObject *slot)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *done = PyObject_CallFunctionObjArgs(told[APPEND], idle, slot, NULL);
    Py_XDECREF(done);
    Py_DECREF(slot); /* if it could not be laid there, the pool hears of it as of any that is lost */
    PyErr_Restore(type, value, traceback);
}

/* Is the queue empty? */
static inline int
nobody_waits(PyObject *pool)
{
    PyObject *tickets = *field(pool, POOL_TICKETS);
    return tickets != NULL && PyDict_Check(tickets) && PyDict_GET_SIZE(tickets) == 0;
}

/* Note in two fields of an object where in the program its caller is. */
static enum answer
note_place(PyObject *in, int code_field, int instruction_field)
{
    PyFrameObject *frame = PyEval_GetFrame(); /* borrowed */
    if (frame == NULL) {
        return NO;
    }
#if PY_VERSION_HEX >= 0x030B0000
    long at = PyFrame_GetLasti(frame);
#else
    long at = frame->f_lasti < 0 ? -1 : (long)(frame->f_lasti * sizeof(_Py_CODEUNIT));
#endif
    PyObject *instruction = PyLong_FromLong(at);
    if (instruction == NULL) {
        return FAILED;
    }
    put(in, instruction_field, instruction); /* before the code: who finds that finds this as well */
    put(in, code_field, (PyObject *)PyFrame_GetCode(frame));
    return YES;
}

/* ------------------------------------------------------------------ a checkout */

/* May a slot be handed out at *now* as it is? */
static enum answer
is_ready(PyObject *pool, PyObject *slot, double now)
{
    if (!is_a(slot, SLOT) || !(now < seconds(slot, SLOT_BEST_BEFORE)) || !(now < seconds(slot, SLOT_EXPIRES_AT))) {
        return NO;
    }
    if (now - seconds(slot, SLOT_RETURNED_AT) < quiet_s) {
        return YES;
    }
    return is_denied(*field(pool, POOL_READABLE), *field(slot, SLOT_CONN));
}

/* Take from its shelf the slot that a checkout at *now* may have as it is, a new reference; NO: all lie there. */
static enum answer
pop_ready(PyObject *pool, double now, PyObject **slot)
{
    PyObject *idle = *field(pool, POOL_IDLE);
    if (idle == NULL || PyObject_Size(idle) < 1) {
        return NO;
    }
    Py_INCREF(idle);
    *slot = PyObject_CallOneArg(told[POP], idle);
    enum answer ready = *slot == NULL ? FAILED : is_ready(pool, *slot, now);
    if (ready != YES && *slot != NULL) {
        lay_back(idle, *slot);
        *slot = NULL;
    }
    Py_DECREF(idle);
    return ready;
}

/* Note who has taken a slot, and where. */
static enum answer
note_holder(PyObject *pool, PyObject *slot)
{
    PyObject *loop = Py_NewRef(*field(pool, POOL_LOOP));
    PyObject *task = PyObject_CallOneArg(told[TASK_IN], loop);
    Py_DECREF(loop);
    if (task == NULL) {
        return FAILED;
    }
    PyObject *number = PyLong_FromVoidPtr(task); /* id() of it */
    Py_DECREF(task);
    if (number == NULL) {
        return FAILED;
    }
    put(slot, SLOT_THREAD_ID, number);
    return note_place(slot, SLOT_CODE, SLOT_INSTRUCTION);
}

/* Give a lease another class; *seen* is the one that was last seen to be laid out as leases are. */
static enum answer
become(PyObject *lease, PyObject *kind, PyObject **seen)
{
    if (kind == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bug: a pool without a class for its leases");
        return FAILED;
    }
    Py_INCREF(kind);
    if (kind == *seen) {
        PyTypeObject *before = Py_TYPE(lease);
        Py_SET_TYPE(lease, (PyTypeObject *)kind); /* which the lease holds from now on */
        Py_DECREF(before);
        return YES;
    }
    int became = PyObject_SetAttr(lease, class_name, kind); /* this looks whether they are laid out alike */
    PyObject *other = *seen;
    *seen = became < 0 ? NULL : Py_NewRef(kind);
    Py_XDECREF(other);
    Py_DECREF(kind);
    return became < 0 ? FAILED : YES;
}

/* Have a lease hold a slot that is leased to it. */
static enum answer
hold(PyObject *pool, PyObject *lease, PyObject *slot)
{
    if (become(lease, *field(pool, POOL_LEASE_KIND), &lease_kind_seen) == FAILED) {
        return FAILED;
    }
    put(lease, LEASE_SLOT, Py_NewRef(slot));
    return *field(pool, POOL_TRACKS) == Py_True && note_holder(pool, slot) == FAILED ? FAILED : YES;
}

/* Have a lease take a connection that can be had as it is; NO: there is none, and all is as it was. */
static enum answer
take_idle(PyObject *pool, PyObject *lease, PyObject *now)
{
    PyObject *slot = NULL;
    enum answer done = pop_ready(pool, PyFloat_AS_DOUBLE(now), &slot);
    if (done == YES) {
        put(slot, SLOT_STATE, Py_NewRef(told[LEASED]));
        put(slot, SLOT_LEASED_AT, Py_NewRef(now));
        done = hold(pool, lease, slot);
        Py_DECREF(slot);
    }
    return done;
}

/* Take a place behind others for a lease; return the ticket, a new reference. */
static PyObject *
line_up(PyObject *pool, PyObject *lease, PyObject *now)
{
    if (become(lease, told[UNTAKEN], &untaken_seen) == FAILED) { /* it was awaited, whatever comes of it */
        return NULL;
    }
    PyObject *ticket = PyObject_CallMethodObjArgs(pool, line_up_name, Py_None, now, NULL);
    if (ticket != NULL && !is_a(ticket, TICKET)) {
        PyErr_SetString(PyExc_TypeError, "bug: a place in the queue without a ticket");
        Py_CLEAR(ticket);
    }
    return ticket;
}

/* Have a lease take a connection, or a place in the queue if there is one; NO: all is as it was. */
static enum answer
begin(PyObject *lease, PyObject **ticket)
{
    if ((PyObject *)Py_TYPE(lease) != told[ASKED] || *field(lease, LEASE_TIMEOUT) != Py_None) {
        return NO;
    }
    PyObject *pool = *field(lease, LEASE_POOL);
    if (pool == NULL || !is_a(pool, POOL)) {
        return NO;
    }
    Py_INCREF(pool);
    PyObject *now = NULL;
    enum answer done = is_on_loop(pool);
    if (done == YES) {
        done = read_clock(pool, &now);
    }
    if (done == YES && nobody_waits(pool)) {
        done = take_idle(pool, lease, now);
    }
    else if (done == YES) {
        *ticket = line_up(pool, lease, now);
        done = *ticket == NULL ? FAILED : YES;
    }
    Py_XDECREF(now);
    Py_DECREF(pool);
    return done;
}

/* ------------------------------------------------------------------ what is awaited */

/* A checkout that is awaited.  Where it waits it hands on to another iterator, as Python's `yield from` does. */
typedef struct {
    PyObject_HEAD
    PyObject *lease;  /* NULL once it has ended */
    PyObject *ticket; /* NULL unless it has a place in the queue */
    PyObject *inner;  /* what it waits for; NULL before it was begun */
    enum { WITH_PYTHON, PARKED, WOKEN } stage; /* of what is inner: take(), the ticket's waiter, pool._wait_on() */
} Checkout;

static PySendResult checkout_send(Checkout *self, PyObject *value, PyObject **result);
static PyTypeObject *checkout_type;
static Checkout *spare; /* one that is not used, kept since there is hardly ever a second; not tracked, without type */

static PyObject *
make_checkout(PyObject *lease)
{
    Checkout *made = spare;
    spare = NULL;
    made = made != NULL ? (Checkout *)PyObject_Init((PyObject *)made, checkout_type)
                        : PyObject_GC_New(Checkout, checkout_type);
    if (made != NULL) {
        made->lease = Py_NewRef(lease);
        made->ticket = made->inner = NULL;
        made->stage = WITH_PYTHON;
        PyObject_GC_Track(made);
    }
    return (PyObject *)made;
}

static int
checkout_traverse(Checkout *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->lease);
    Py_VISIT(self->ticket);
    Py_VISIT(self->inner);
    return 0;
}

static int
checkout_clear(Checkout *self)
{
    Py_CLEAR(self->lease);
    Py_CLEAR(self->ticket);
    Py_CLEAR(self->inner);
    return 0;
}

/* Leave the queue, called away by an error, which is the current one afterwards. */
static void
step_out(Checkout *self)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *ticket = self->ticket, *lease = self->lease;
    self->ticket = self->lease = NULL; /* nobody does this twice */
    PyObject *done = PyObject_CallMethodObjArgs(*field(lease, LEASE_POOL), step_out_name, ticket, error, NULL);
    Py_DECREF(ticket);
    Py_DECREF(lease);
    if (done == NULL) {
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
        return;
    }
    Py_DECREF(done);
    PyErr_Restore(type, error, traceback);
}

/* Leave the queue because nobody will go on with this. */
static void
step_out_dropped(Checkout *self)
{
    PyErr_SetNone(PyExc_GeneratorExit);
    step_out(self);
}

static void
checkout_finalize(Checkout *self)
{
    if (self->ticket != NULL && self->stage == PARKED) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        step_out_dropped(self);
        if (!PyErr_ExceptionMatches(PyExc_GeneratorExit)) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        PyErr_Restore(type, error, traceback);
    }
}

static void
checkout_dealloc(Checkout *self)
{
    if (self->ticket != NULL && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return; /* somebody holds it again */
    }
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)checkout_clear(self);
    if (spare == NULL && !PyObject_GC_IsFinalized((PyObject *)self)) {
        spare = self;
    }
    else {
        PyObject_GC_Del(self);
    }
    Py_DECREF(type);
}

/* End with a lease that holds a slot. */
static PySendResult
end_with(Checkout *self, PyObject *slot, PyObject **result)
{
    PyObject *lease = self->lease;
    self->lease = NULL;
    Py_CLEAR(self->ticket);
    if (hold(*field(lease, LEASE_POOL), lease, slot) == FAILED) {
        Py_DECREF(lease);
        return PYGEN_ERROR;
    }
    *result = lease;
    return PYGEN_RETURN;
}

/* Go on as somebody who was woken: by a connection, as most are, and no conversation is held for these. */
static PySendResult
wake_up(Checkout *self, PyObject **result)
{
    PyObject *pool = *field(self->lease, LEASE_POOL), *slot = *field(self->ticket, TICKET_SLOT), *done, *now = NULL;
    if (slot != NULL && is_a(slot, SLOT) && *field(slot, SLOT_STATE) == told[LEASED]) {
        Py_INCREF(slot);
        done = PyObject_CallMethodOneArg(*field(pool, POOL_LEDGER), pick_up_name, self->ticket);
        PySendResult how = done != NULL && read_clock(pool, &now) == YES ? PYGEN_RETURN : PYGEN_ERROR;
        if (how == PYGEN_RETURN) {
            put(slot, SLOT_LEASED_AT, now);
            how = end_with(self, slot, result);
        }
        Py_XDECREF(done);
        Py_DECREF(slot);
        return how;
    }
    self->stage = WOKEN;
    Py_CLEAR(self->inner);
    self->inner = PyObject_CallMethodObjArgs(pool, wait_on_name, self->ticket, Py_None, NULL);
    return self->inner == NULL ? PYGEN_ERROR : checkout_send(self, Py_None, result);
}

/* Take what the inner iterator has brought. */
static PySendResult
go_on(Checkout *self, PySendResult how, PyObject **result)
{
    if (how == PYGEN_NEXT || self->stage == WITH_PYTHON || self->lease == NULL) {
        return how;
    }
    if (how == PYGEN_ERROR) {
        if (self->stage == PARKED) {
            step_out(self);
        }
        return how; /* a conversation sees to its ticket itself */
    }
    PyObject *brought = *result;
    *result = NULL;
    how = self->stage == PARKED ? wake_up(self, result) : end_with(self, brought, result);
    Py_DECREF(brought);
    return how;
}

/* Have Python do it from the beginning. */
static PyObject *
leave_to_python(Checkout *self)
{
    self->inner = PyObject_CallOneArg(told[TAKE], self->lease);
    Py_CLEAR(self->lease);
    return self->inner;
}

/* Begin: take what can be had as it is, take a place in the queue, or leave it to Python. */
static PySendResult
checkout_begin(Checkout *self, PyObject **result)
{
    if (self->lease == NULL) { /* it has ended: as generators say that */
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    enum answer begun = begin(self->lease, &self->ticket);
    if (begun == FAILED) {
        Py_CLEAR(self->lease);
        return PYGEN_ERROR;
    }
    if (begun == YES && self->ticket == NULL) {
        *result = self->lease;
        self->lease = NULL;
        return PYGEN_RETURN;
    }
    if (begun == YES) {
        self->stage = PARKED;
        self->inner = PyObject_CallMethodNoArgs(*field(self->ticket, TICKET_WAITER), await_name);
        if (self->inner == NULL) {
            step_out(self);
        }
    }
    else {
        leave_to_python(self);
    }
    return self->inner == NULL ? PYGEN_ERROR : PYGEN_NEXT;
}

static PySendResult
checkout_send(Checkout *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (self->inner == NULL) {
        PySendResult begun = checkout_begin(self, result);
        if (begun != PYGEN_NEXT) {
            return begun;
        }
    }
    PyObject *inner = Py_NewRef(self->inner); /* it may be let go meanwhile */
    PySendResult how = PyIter_Send(inner, value, result);
    Py_DECREF(inner);
    return go_on(self, how, result);
}

/* Say what a send has brought as an iterator says it. */
static PyObject *
as_iterator(PySendResult how, PyObject *result)
{
    if (how != PYGEN_RETURN) {
        return result;
    }
    /* Not PyErr_SetObject(): since Python 3.12 it takes a fifth of a pair to make this exception, by calling its class,
    and since `await` asks no longer how else an object would say that it has ended, each pair needs one. */
    PyTypeObject *kind = (PyTypeObject *)PyExc_StopIteration;
    PyObject *stop = kind->tp_new(kind, no_arguments, NULL);
    if (stop == NULL) {
        Py_DECREF(result);
        return NULL;
    }
    ((PyStopIterationObject *)stop)->value = result;
    PyErr_SetObject(PyExc_StopIteration, stop);
    Py_DECREF(stop);
    return NULL;
}

/* Say what a call of an iterator's method has brought as a send says it. */
static PySendResult
as_send(PyObject *brought, PyObject **result)
{
    *result = brought;
    if (brought != NULL) {
        return PYGEN_NEXT;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    PyObject *type, *stop, *traceback;
    PyErr_Fetch(&type, &stop, &traceback);
    PyErr_NormalizeException(&type, &stop, &traceback);
    PyObject *value = ((PyStopIterationObject *)stop)->value;
    *result = Py_NewRef(value == NULL ? Py_None : value);
    Py_XDECREF(type);
    Py_XDECREF(stop);
    Py_XDECREF(traceback);
    return PYGEN_RETURN;
}

static PyObject *
checkout_next(Checkout *self)
{
    PyObject *result;
    PySendResult how = checkout_send(self, Py_None, &result);
    return as_iterator(how, result);
}

static PyObject *
checkout_send_method(Checkout *self, PyObject *value)
{
    PyObject *result;
    PySendResult how = checkout_send(self, value, &result);
    return as_iterator(how, result);
}

static PyObject *
checkout_throw(Checkout *self, PyObject *arguments)
{
    if (self->inner == NULL && self->lease == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this checkout has ended");
        return NULL;
    }
    if (self->inner == NULL && leave_to_python(self) == NULL) {
        return NULL;
    }
    PyObject *inner = Py_NewRef(self->inner);
    PyObject *method = PyObject_GetAttrString(inner, "throw"), *result;
    PySendResult how = as_send(method == NULL ? NULL : PyObject_CallObject(method, arguments), &result);
    Py_XDECREF(method);
    Py_DECREF(inner);
    how = go_on(self, how, &result);
    return as_iterator(how, result);
}

static PyObject *
checkout_close(Checkout *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *inner = self->inner, *closed = NULL;
    if (self->ticket != NULL && self->stage == PARKED) {
        step_out_dropped(self);
        if (!PyErr_ExceptionMatches(PyExc_GeneratorExit)) {
            return NULL;
        }
        PyErr_Clear();
    }
    Py_CLEAR(self->lease);
    if (inner == NULL) {
        Py_RETURN_NONE;
    }
    Py_INCREF(inner);
    closed = PyObject_CallMethodNoArgs(inner, close_name);
    Py_DECREF(inner);
    return closed;
}

static PyMethodDef checkout_methods[] = {
    {"send", (PyCFunction)checkout_send_method, METH_O, NULL},
    {"throw", (PyCFunction)checkout_throw, METH_VARARGS, NULL},
    {"close", (PyCFunction)checkout_close, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot checkout_slots[] = {
    {Py_tp_doc, "A checkout that is awaited."},
    {Py_tp_traverse, checkout_traverse},
    {Py_tp_clear, checkout_clear},
    {Py_tp_dealloc, checkout_dealloc},
    {Py_tp_finalize, checkout_finalize},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, checkout_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, checkout_next},
    {Py_tp_methods, checkout_methods},
    {0, NULL},
};

static PyType_Spec checkout_spec = {
    .name = "millpond._compiled_pair.Checkout",
    .basicsize = sizeof(Checkout),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = checkout_slots,
};

/* ------------------------------------------------------------------ methods of the classes of Python */

/* Call what Python has for a method, with the arguments as they came. */
static PyObject *
in_python(int what, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (told[what] == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bug: nobody has told the compiled pair of its classes");
        return NULL;
    }
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    PyObject **all = PyMem_New(PyObject *, 1 + count + named);
    if (all == NULL) {
        return PyErr_NoMemory();
    }
    all[0] = self;
    for (Py_ssize_t each = 0; each < count + named; each++) {
        all[1 + each] = args[each];
    }
    PyObject *result = PyObject_Vectorcall(told[what], all, 1 + count, names);
    PyMem_Free(all);
    return result;
}

static PyObject *
pool_connection(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count > 1 || names != NULL || !is_a(self, POOL)) {
        return in_python(CONNECTION, self, args, count, names);
    }
    PyTypeObject *kind = (PyTypeObject *)told[ASKED];
    PyObject *lease = kind->tp_alloc(kind, 0);
    if (lease != NULL) {
        *field(lease, LEASE_POOL) = Py_NewRef(self);
        *field(lease, LEASE_TIMEOUT) = Py_NewRef(count ? args[0] : Py_None);
    }
    return lease;
}

/* Note of a use that it has ended, and where. */
static enum answer
note_use(PyObject *lease, PyObject *slot, double at)
{
    PyObject *number = *field(slot, SLOT_USES);
    PyObject *uses = number == NULL ? NULL : PyNumber_Add(number, one);
    PyObject *busy = PyFloat_FromDouble(seconds(slot, SLOT_BUSY) + at - seconds(slot, SLOT_LEASED_AT));
    if (uses == NULL || busy == NULL) {
        Py_XDECREF(uses);
        Py_XDECREF(busy);
        return FAILED;
    }
    put(slot, SLOT_USES, uses);
    put(slot, SLOT_BUSY, busy);
    return note_place(lease, LEASE_CODE, LEASE_INSTRUCTION);
}

/* Lay a slot with which everything is fine on its shelf.  The caller holds it, and nobody else does. */
static enum answer
shelve(PyObject *pool, PyObject *slot, PyObject *now, double best_before)
{
    PyObject *until = PyFloat_FromDouble(best_before);
    if (until == NULL) {
        return FAILED;
    }
    put(slot, SLOT_RETURNED_AT, Py_NewRef(now));
    put(slot, SLOT_BEST_BEFORE, until);
    put(slot, SLOT_STATE, Py_NewRef(told[IDLE]));
    PyObject *shelf_and_slot[] = {Py_NewRef(*field(pool, POOL_IDLE)), slot};
    PyObject *done = PyObject_Vectorcall(told[APPEND], shelf_and_slot, 2, NULL);
    Py_DECREF(shelf_and_slot[0]);
    Py_XDECREF(done);
    return done == NULL ? FAILED : YES;
}

/* Let the ledger give to whoever waits what comes back, and perform what it leaves in the outbox. */
static enum answer
hand_over(PyObject *pool, PyObject *slot)
{
    PyObject *ledger = Py_NewRef(*field(pool, POOL_LEDGER));
    PyObject *done = PyObject_CallMethodOneArg(ledger, take_back_name, slot);
    Py_DECREF(ledger);
    if (done != NULL) {
        Py_DECREF(done);
        done = PyObject_CallMethodNoArgs(pool, deliver_name);
    }
    Py_XDECREF(done);
    return done == NULL ? FAILED : YES;
}

/* Take from a lease what it holds, if everything is fine with it, for whoever is next; NO: all is as it was. */
static enum answer
take_from(PyObject *lease, PyObject *pool, PyObject *slot, PyObject *now)
{
    double at = PyFloat_AS_DOUBLE(now), best_before = at + seconds(pool, POOL_CHECK_AFTER);
    if (!(at < seconds(slot, SLOT_EXPIRES_AT)) || Py_IS_NAN(best_before)) {
        return NO;
    }
    enum answer fine = is_denied(*field(pool, POOL_UNCLEAN), slot);
    if (fine != YES || *field(lease, LEASE_SLOT) != slot) {
        return fine == FAILED ? FAILED : NO;
    }
    Py_CLEAR(*field(lease, LEASE_SLOT)); /* the caller of this holds it, and nobody else */
    int tracks = *field(pool, POOL_TRACKS) == Py_True;
    if (!nobody_waits(pool)) {
        return tracks && note_place(lease, LEASE_CODE, LEASE_INSTRUCTION) == FAILED ? FAILED : hand_over(pool, slot);
    }
    return tracks && note_use(lease, slot, at) == FAILED ? FAILED : shelve(pool, slot, now, best_before);
}

/* Give back what a lease holds, if everything is fine with it; NO: all is as it was. */
static enum answer
give_back(PyObject *lease)
{
    PyObject *pool = *field(lease, LEASE_POOL);
    PyObject *slot = *field(lease, LEASE_SLOT);
    if (pool == NULL || slot == NULL || !is_a(pool, POOL) || !is_a(slot, SLOT)) {
        return NO;
    }
    Py_INCREF(pool);
    Py_INCREF(slot);
    PyObject *now = NULL;
    enum answer done = is_on_loop(pool);
    if (done == YES) {
        done = read_clock(pool, &now);
    }
    if (done == YES) {
        done = take_from(lease, pool, slot, now);
    }
    Py_XDECREF(now);
    Py_DECREF(slot);
    Py_DECREF(pool);
    return done;
}

static PyObject *
lease_close(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (names == NULL && is_a(self, LEASE) && (count == 0 || (count == 3 && args[0] == Py_None))) {
        enum answer done = give_back(self);
        if (done == YES) {
            return Py_NewRef(told[NOTHING]);
        }
        if (done == FAILED) {
            return NULL;
        }
    }
    return in_python(CLOSE, self, args, count, names);
}

static PyObject *
asked_await(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return make_checkout(self);
}

/* Methods, the class that has them, and what Python has for each: it is called for what is not plain, and documents it. */
static struct {
    int of;
    int python;
    const char *signature;
    PyMethodDef definition;
} methods[] = {
    {POOL, CONNECTION, "connection($self, timeout=None)",
     {"connection", (PyCFunction)(void (*)(void))pool_connection, METH_FASTCALL | METH_KEYWORDS, NULL}},
    {LEASE, CLOSE, "close($self, exc_type=None, _exc=None, _traceback=None)",
     {"close", (PyCFunction)(void (*)(void))lease_close, METH_FASTCALL | METH_KEYWORDS, NULL}},
    {LEASE, CLOSE, "__aexit__($self, exc_type=None, _exc=None, _traceback=None)",
     {"__aexit__", (PyCFunction)(void (*)(void))lease_close, METH_FASTCALL | METH_KEYWORDS, NULL}},
    {ASKED, TAKE, "__await__($self)", {"__await__", asked_await, METH_NOARGS, NULL}},
    {ASKED, TAKE, "__aenter__($self)", {"__aenter__", asked_await, METH_NOARGS, NULL}},
};
enum { METHODS = sizeof methods / sizeof methods[0] };
static PyObject *documents[METHODS]; /* owned: what the definitions have is their text */

/* ------------------------------------------------------------------ the module */

/* Find out where in an object of a class a field lies; -1 with an error if it is not one of its slots. */
static Py_ssize_t
offset_in(PyObject *kind, const char *name)
{
    Py_ssize_t offset = -1;
    PyObject *found = PyObject_GetAttrString(kind, name);
    if (found != NULL) {
        PyMemberDef *member = Py_IS_TYPE(found, &PyMemberDescr_Type) ? ((PyMemberDescrObject *)found)->d_member : NULL;
        if (member != NULL && member->type == T_OBJECT_EX) {
            offset = member->offset;
        }
        else {
            PyErr_Format(PyExc_TypeError, "%R has no slot %s", kind, name);
        }
        Py_DECREF(found);
    }
    return offset;
}

/* Look up, in what `learn` was given, all that it must have; nothing is kept yet. */
static int
look_up(PyObject *names, PyObject *found[TOLD], Py_ssize_t where[FIELDS], double *quiet)
{
    for (int each = 0; each < TOLD; each++) {
        found[each] = PyDict_GetItemString(names, told_names[each]); /* borrowed */
        if (found[each] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s is missing", told_names[each]);
            return -1;
        }
    }
    for (int each = 0; each < FIELDS; each++) {
        where[each] = offset_in(PyDict_GetItemString(names, field_names[each].owner), field_names[each].name);
        if (where[each] < 0) {
            return -1;
        }
    }
    *quiet = PyFloat_AsDouble(found[QUIET_S]);
    return PyErr_Occurred() ? -1 : 0;
}

/* Give a method the words that Python has for it, behind the signature that inspect reads. */
static int
document(int which)
{
    PyObject *words = PyObject_GetAttrString(told[methods[which].python], "__doc__");
    PyObject *all = words == NULL ? NULL : PyUnicode_FromFormat("%s\n--\n\n%S", methods[which].signature, words);
    const char *text = all == NULL ? NULL : PyUnicode_AsUTF8(all);
    Py_XDECREF(words);
    if (text == NULL) {
        Py_XDECREF(all);
        return -1;
    }
    methods[which].definition.ml_doc = text;
    Py_XSETREF(documents[which], all);
    return 0;
}

/* Let a method take its place in the class. */
static int
take_place(int which)
{
    PyTypeObject *kind = (PyTypeObject *)told[methods[which].of];
    PyObject *method = PyDescr_NewMethod(kind, &methods[which].definition);
    int taken = method == NULL ? -1
                               : PyObject_SetAttrString((PyObject *)kind, methods[which].definition.ml_name, method);
    Py_XDECREF(method);
    return taken;
}

static PyObject *
learn(PyObject *Py_UNUSED(module), PyObject *names)
{
    PyObject *found[TOLD];
    Py_ssize_t where[FIELDS];
    if (look_up(names, found, where, &quiet_s) < 0) {
        return NULL;
    }
    memcpy(offsets, where, sizeof offsets);
    for (int each = 0; each < TOLD; each++) {
        Py_XSETREF(told[each], Py_NewRef(found[each]));
    }
    Py_CLEAR(lease_kind_seen);
    Py_CLEAR(untaken_seen);
    for (int each = 0; each < METHODS; each++) {
        if (document(each) < 0 || take_place(each) < 0) {
            return NULL;
        }
    }
    /* What `await` asks of a class is by now a function that looks `__await__` up; this is what it would find. */
    ((PyTypeObject *)told[ASKED])->tp_as_async->am_await = make_checkout;
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"learn", learn, METH_O, "Learn the classes, the functions and the values that are named in a dictionary."},
    {NULL},
};

static int
fill(PyObject *module)
{
    if (owner != NULL && owner != PyInterpreterState_Get()) {
        PyErr_SetString(PyExc_ImportError, "another interpreter of this process has it");
        return -1;
    }
    owner = PyInterpreterState_Get();
#define INTERN(variable, name)                                                                                         \
    if ((variable = PyUnicode_InternFromString(name)) == NULL) {                                                       \
        return -1;                                                                                                     \
    }
    NAMES(INTERN)
    one = PyLong_FromLong(1);
    no_arguments = PyTuple_New(0);
    if (one == NULL || no_arguments == NULL) {
        return -1;
    }
    checkout_type = (PyTypeObject *)PyType_FromSpec(&checkout_spec);
    return checkout_type == NULL ? -1 : PyModule_AddType(module, checkout_type);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, fill},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "millpond._compiled_pair",
    .m_doc = "A checkout and a return of the asyncio pool with which everything is fine, compiled.",
    .m_size = 0,
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__compiled_pair(void)
{
    return PyModuleDef_Init(&module_definition);
}
