/* The plain ways of the asyncio pool, compiled: to take a connection that is ready or to queue for one, and to give one
back with which everything is fine.

Why: a task that finds a connection ready waits for nothing, and yet its checkout and return take Python three times as
long as a pool that is compiled; and where tasks queue each hand-over counts (docs/adr/082-a-compiled-pair.md).

What it is: methods that take the place of AsyncPool.connection, Asked.__await__, Asked.__aenter__, AsyncLease.close and
AsyncLease.__aexit__, and the iterator that is awaited.  The objects, their classes and all their fields are defined in
Python, where these methods are written as well (aio_lease.py); `learn` looks up where in an object its fields lie.

Rules:
- It says what Python's methods say, line by line: theirs are the definition, errors included.  What is decided (a place
  in the queue, a check, something to be cleaned, to whom a connection goes) it asks of the pool's methods, as they do.
- A time-out of one's own, another loop and arguments that are named are left to Python before anything is touched.
- It keeps no state of its own but what `learn` was told.
- What is read from a field is held for as long as it is used: anything that is called may change the field.
- The main interpreter's classes have it, the first that come; others, and a build without the GIL, do with Python. */

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
    POOL_LOOP, POOL_HERE, POOL_LEDGER, POOL_CLOCK, POOL_IDLE, POOL_TICKETS, POOL_TRACKS, POOL_CHECK_AFTER, POOL_UNCLEAN,
    POOL_READABLE, POOL_LEASE_KIND,
    LEASE_POOL, LEASE_SLOT, LEASE_TIMEOUT, LEASE_CODE, LEASE_INSTRUCTION,
    SLOT_CONN, SLOT_STATE, SLOT_EXPIRES_AT, SLOT_BEST_BEFORE, SLOT_RETURNED_AT, SLOT_LEASED_AT, SLOT_USES, SLOT_BUSY,
    SLOT_CODE, SLOT_INSTRUCTION, SLOT_THREAD_ID,
    TICKET_SLOT, TICKET_WAITER,
    FIELDS
};

/* Names of fields, in the order of the above, behind the class that has them. */
static const struct { const char *owner; const char *name; } field_names[FIELDS] = {
    {"pool", "_loop"}, {"pool", "_here"}, {"pool", "_ledger"}, {"pool", "_clock"}, {"pool", "_idle"},
    {"pool", "_tickets"}, {"pool", "_tracks"}, {"pool", "_check_after_s"}, {"pool", "_unclean"},
    {"pool", "_readable"}, {"pool", "_lease_kind"},
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
    MONOTONIC, ASYNCIO_LOOP, TASK_IN, POP, APPEND,
    TOLD
};
static const char *const told_names[TOLD] = {
    "pool", "lease", "asked", "untaken", "slot", "ticket",
    "connection", "take", "close",
    "leased", "idle", "quiet_s", "nothing",
    "monotonic", "asyncio_loop", "task_in", "pop", "append",
};

static PyObject *told[TOLD];       /* owned; all NULL until `learn` was called */
static Py_ssize_t offsets[FIELDS]; /* of fields in their objects */
static double quiet_s;
static PyObject *lease_kind_seen, *untaken_seen; /* owned, may be NULL: see `become` */
static int is_taken;               /* the module was filled once: these lines are of one interpreter */
static PyObject *one, *no_arguments;

/* Names, interned. */
#define NAMES(each)                                                                                                    \
    each(class_name, "__class__") each(thread_id_name, "_thread_id") each(await_name, "__await__")                     \
    each(take_back_name, "take_back") each(pick_up_name, "pick_up")                                                    \
    each(deliver_name, "_deliver") each(line_up_name, "_line_up") each(wait_on_name, "_wait_on")                       \
    each(step_out_name, "_step_out") each(ask_name, "_ask") each(give_back_name, "_give_back")                         \
    each(throw_name, "throw")
#define DECLARE(variable, name) static PyObject *variable;
NAMES(DECLARE)

/* Return where in an object a field lies. */
static inline PyObject **
field(PyObject *of, int which)
{
    return (PyObject **)((char *)of + offsets[which]);
}

/* Return what a field holds, a new reference; NULL with an error if that is nothing. */
static inline PyObject *
get(PyObject *of, int which)
{
    PyObject *value = *field(of, which);
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, field_names[which].name);
    }
    return Py_XNewRef(value);
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

/* Return a number of seconds; NaN, which compares false with everything, for whatever is none. */
static inline double
seconds(PyObject *value)
{
    if (value != NULL && PyFloat_Check(value)) {
        return PyFloat_AS_DOUBLE(value);
    }
    double whole = value != NULL && PyLong_Check(value) ? PyLong_AsDouble(value) : Py_NAN;
    if (whole == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return Py_NAN;
    }
    return whole;
}

static inline int
is_a(PyObject *object, int kind)
{
    return object != NULL && told[kind] != NULL && PyObject_TypeCheck(object, (PyTypeObject *)told[kind]);
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
    PyObject *here = get(pool, POOL_HERE);
    PyObject *running = here == NULL ? NULL : PyObject_CallNoArgs(here);
    Py_XDECREF(here);
    if (running == NULL) {
        return FAILED;
    }
    Py_DECREF(running); /* only compared */
    return running == loop ? YES : NO;
}

/* Read the pool's clock. */
static PyObject *
read_clock(PyObject *pool)
{
    PyObject *clock = get(pool, POOL_CLOCK);
    if (clock == NULL) {
        return NULL;
    }
    PyObject *now = NULL;
#ifdef __linux__ /* what time.monotonic() does there, to the last bit, without a call of Python's */
    struct timespec read;
    if (clock == told[MONOTONIC] && PyCFunction_CheckExact(clock) && clock_gettime(CLOCK_MONOTONIC, &read) == 0) {
        now = PyFloat_FromDouble((double)((int64_t)read.tv_sec * 1000000000 + read.tv_nsec) / 1e9);
        Py_DECREF(clock);
        return now;
    }
#endif
    now = PyObject_CallNoArgs(clock);
    Py_DECREF(clock);
    return now;
}

/* Has a driver's question, if there is one, the answer no? */
static enum answer
is_denied(PyObject *pool, int question_field, PyObject *subject)
{
    PyObject *question = get(pool, question_field);
    if (question == Py_None) {
        Py_DECREF(question);
        return YES;
    }
    PyObject *answer = question == NULL ? NULL : PyObject_CallOneArg(question, subject);
    Py_XDECREF(question);
    if (answer == NULL) {
        return FAILED;
    }
    int truth = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return truth < 0 ? FAILED : truth ? NO : YES;
}

/* Call a method of deques for a shelf: as C calls it, which is half the price. */
static PyObject *
of_shelf(int method, PyObject *shelf, PyObject *argument)
{
    PyMethodDescrObject *known = (PyMethodDescrObject *)told[method];
    int flags = argument == NULL ? METH_NOARGS : METH_O;
    if (Py_IS_TYPE(known, &PyMethodDescr_Type) && known->d_method->ml_flags == flags &&
        PyObject_TypeCheck(shelf, PyDescr_TYPE(known))) {
        return known->d_method->ml_meth(shelf, argument);
    }
    return PyObject_CallFunctionObjArgs(told[method], shelf, argument, NULL);
}

/* Is the queue empty? */
static inline int
nobody_waits(PyObject *pool)
{
    PyObject *tickets = *field(pool, POOL_TICKETS);
    return tickets != NULL && PyDict_Check(tickets) && PyDict_GET_SIZE(tickets) == 0;
}

static inline int
tracks_use(PyObject *pool)
{
    return *field(pool, POOL_TRACKS) == Py_True;
}

/* Note in two fields of an object where in the program its caller is. */
static int
note_place(PyObject *in, int code_field, int instruction_field)
{
    PyFrameObject *frame = PyEval_GetFrame(); /* borrowed */
    if (frame == NULL) {
        return 0; /* called from C alone */
    }
#if PY_VERSION_HEX >= 0x030B0000
    long at = PyFrame_GetLasti(frame);
#else
    long at = frame->f_lasti < 0 ? -1 : (long)(frame->f_lasti * sizeof(_Py_CODEUNIT));
#endif
    PyObject *instruction = PyLong_FromLong(at);
    if (instruction == NULL) {
        return -1;
    }
    put(in, instruction_field, instruction); /* before the code: who finds that finds this as well */
    put(in, code_field, (PyObject *)PyFrame_GetCode(frame));
    return 0;
}

/* ------------------------------------------------------------------ a lease and what it holds */

/* Give a lease another class; *seen* is the one that was last seen to be laid out as leases are. */
static int
become(PyObject *lease, PyObject *kind, PyObject **seen)
{
    if (kind == *seen && kind != NULL) {
        PyTypeObject *before = Py_TYPE(lease);
        Py_SET_TYPE(lease, (PyTypeObject *)Py_NewRef(kind));
        Py_DECREF(before);
        return 0;
    }
    Py_XINCREF(kind);
    int became = PyObject_SetAttr(lease, class_name, kind); /* this looks whether they are laid out alike */
    Py_XSETREF(*seen, became < 0 ? NULL : Py_XNewRef(kind));
    Py_XDECREF(kind);
    return became;
}

/* Note who has taken a slot, and where. */
static int
note_holder(PyObject *pool, PyObject *slot)
{
    PyObject *loop = get(pool, POOL_LOOP);
    PyObject *task = loop == NULL ? NULL : PyObject_CallOneArg(told[TASK_IN], loop);
    PyObject *number = task == NULL ? NULL : PyLong_FromVoidPtr(task); /* id() of it */
    Py_XDECREF(loop);
    Py_XDECREF(task);
    if (number == NULL) {
        return -1;
    }
    put(slot, SLOT_THREAD_ID, number);
    return note_place(slot, SLOT_CODE, SLOT_INSTRUCTION);
}

/* Have a lease hold a slot that is leased to it. */
static int
hold(PyObject *lease, PyObject *slot)
{
    PyObject *pool = Py_XNewRef(*field(lease, LEASE_POOL));
    if (!is_a(pool, POOL) || !is_a(slot, SLOT)) {
        Py_XDECREF(pool);
        PyErr_SetString(PyExc_TypeError, "bug: a lease without a pool, or of something that is no slot");
        return -1;
    }
    int done = become(lease, *field(pool, POOL_LEASE_KIND), &lease_kind_seen);
    if (done == 0) {
        put(lease, LEASE_SLOT, Py_NewRef(slot));
        done = tracks_use(pool) ? note_holder(pool, slot) : 0;
    }
    Py_DECREF(pool);
    return done;
}

/* ------------------------------------------------------------------ take(), which is awaited */

/* A checkout that is awaited.  Where it waits it hands on to another iterator, as Python's `yield from` does. */
typedef struct {
    PyObject_HEAD
    PyObject *lease;  /* NULL once it has ended, or was left to Python */
    PyObject *ticket; /* NULL unless it is parked in the queue */
    PyObject *inner;  /* what it waits for: the ticket's waiter, a conversation, or Python's take(); NULL: for nothing */
    int running;      /* some method of it is being executed */
} Checkout;

static PySendResult step(Checkout *self, PyObject *value, PyObject **result);
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
        made->running = 0;
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

/* Have the current error tell of the one that was being handled when it was raised. */
static void
tell_of(PyObject *handled)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *context = PyException_GetContext(error);
    if (context == NULL && error != handled) {
        PyException_SetContext(error, Py_XNewRef(handled));
    }
    Py_XDECREF(context);
    PyErr_Restore(type, error, traceback);
}

/* Leave the queue, called away by an error, which is the current one afterwards. */
static void
step_out(Checkout *self)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *ticket = self->ticket;
    self->ticket = NULL; /* nobody does this twice */
    PyObject *pool = get(self->lease, LEASE_POOL);
    PyObject *done = pool == NULL ? NULL : PyObject_CallMethodObjArgs(pool, step_out_name, ticket, error, NULL);
    Py_XDECREF(pool);
    Py_DECREF(ticket);
    if (done != NULL) {
        Py_DECREF(done);
        PyErr_Restore(type, error, traceback);
        return;
    }
    tell_of(error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
}

/* End, and leave the queue if it is parked there, because nobody will go on with this: a finalizer may try. */
static void
checkout_finalize(Checkout *self)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    if (self->ticket != NULL) {
        PyErr_SetNone(PyExc_GeneratorExit);
        step_out(self);
        if (!PyErr_ExceptionMatches(PyExc_GeneratorExit)) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        PyErr_Clear();
    }
    (void)checkout_clear(self);
    PyErr_Restore(type, error, traceback);
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

/* Wait for what an iterator brings, which is given away; NULL is an error. */
static PySendResult
wait_for(Checkout *self, PyObject *iterator)
{
    Py_XSETREF(self->inner, iterator);
    return iterator == NULL ? PYGEN_ERROR : PYGEN_NEXT;
}

/* Have Python do it from the beginning; of what has ended, it says what generators say. */
static PySendResult
leave_to_python(Checkout *self)
{
    PySendResult how = wait_for(self, PyObject_CallOneArg(told[TAKE], self->lease == NULL ? Py_None : self->lease));
    Py_CLEAR(self->lease);
    return how;
}

/* End with the lease, which holds a slot from now on. */
static PySendResult
end_with(Checkout *self, PyObject *slot, PyObject **result)
{
    if (hold(self->lease, slot) < 0) {
        return PYGEN_ERROR;
    }
    *result = self->lease;
    self->lease = NULL;
    Py_CLEAR(self->inner);
    return PYGEN_RETURN;
}

/* May a lease take its connection here and now? */
static enum answer
is_plain(PyObject *lease)
{
    PyObject *pool = *field(lease, LEASE_POOL);
    if ((PyObject *)Py_TYPE(lease) != told[ASKED] || *field(lease, LEASE_TIMEOUT) != Py_None || !is_a(pool, POOL)) {
        return NO;
    }
    return is_on_loop(pool);
}

/* Take from its shelf what may be handed out; NULL: there is nothing, or others come first, or there is an error. */
static PyObject *
pop_idle(PyObject *pool)
{
    PyObject *slot = NULL, *idle = get(pool, POOL_IDLE);
    if (idle != NULL && PyObject_Size(idle) > 0 && nobody_waits(pool)) {
        slot = of_shelf(POP, idle, NULL);
    }
    Py_XDECREF(idle);
    return slot;
}

/* May a slot be handed out at *now* as it is? */
static enum answer
is_ready(PyObject *pool, PyObject *slot, double now)
{
    if (!is_a(slot, SLOT) || !(now < seconds(*field(slot, SLOT_BEST_BEFORE))) ||
        !(now < seconds(*field(slot, SLOT_EXPIRES_AT)))) {
        return NO;
    }
    if (now - seconds(*field(slot, SLOT_RETURNED_AT)) < quiet_s) {
        return YES;
    }
    PyObject *conn = get(slot, SLOT_CONN);
    enum answer quiet = conn == NULL ? FAILED : is_denied(pool, POOL_READABLE, conn);
    Py_XDECREF(conn);
    return quiet;
}

/* Take a place behind others, and wait there. */
static PySendResult
line_up(Checkout *self, PyObject *pool, PyObject *now)
{
    PyObject *ticket = PyObject_CallMethodObjArgs(pool, line_up_name, Py_None, now, NULL);
    if (ticket == NULL) {
        return PYGEN_ERROR;
    }
    if (!is_a(ticket, TICKET)) {
        PyErr_SetString(PyExc_TypeError, "bug: a place in the queue without a ticket");
        Py_DECREF(ticket);
        return PYGEN_ERROR;
    }
    self->ticket = ticket;
    PyObject *waiter = get(ticket, TICKET_WAITER);
    PySendResult how = wait_for(self, waiter == NULL ? NULL : PyObject_CallMethodNoArgs(waiter, await_name));
    Py_XDECREF(waiter);
    return how;
}

/* Take what can be had as it is, or find out what to wait for. */
static PySendResult
take(Checkout *self, PyObject *pool, PyObject **result)
{
    PyObject *now = read_clock(pool);
    PyObject *slot = now == NULL ? NULL : pop_idle(pool);
    enum answer ready = slot != NULL ? is_ready(pool, slot, seconds(now)) : PyErr_Occurred() ? FAILED : NO;
    PySendResult how = PYGEN_ERROR;
    if (ready == YES) {
        put(slot, SLOT_STATE, Py_NewRef(told[LEASED]));
        put(slot, SLOT_LEASED_AT, Py_NewRef(now));
        how = end_with(self, slot, result);
    }
    else if (ready == NO && become(self->lease, told[UNTAKEN], &untaken_seen) == 0) { /* awaited, whatever comes of it */
        if (slot == NULL && !nobody_waits(pool)) {
            how = line_up(self, pool, now);
        }
        else {
            PyObject *popped = slot == NULL ? Py_None : slot;
            how = wait_for(self, PyObject_CallMethodObjArgs(pool, ask_name, popped, Py_None, NULL));
        }
    }
    Py_XDECREF(slot);
    Py_XDECREF(now);
    return how;
}

static PySendResult
begin(Checkout *self, PyObject *value, PyObject **result)
{
    if (self->lease == NULL) { /* it has ended: as generators say that */
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    enum answer plain = value == Py_None ? is_plain(self->lease) : NO;
    if (plain != YES) {
        return plain == NO ? leave_to_python(self) : PYGEN_ERROR;
    }
    PyObject *pool = get(self->lease, LEASE_POOL);
    PySendResult how = take(self, pool, result);
    Py_DECREF(pool);
    return how;
}

/* Take the connection that a ticket was granted. */
static PySendResult
pick_up(Checkout *self, PyObject *pool, PyObject *ticket, PyObject *slot, PyObject **result)
{
    PyObject *ledger = get(pool, POOL_LEDGER), *now = NULL;
    PyObject *done = ledger == NULL ? NULL : PyObject_CallMethodOneArg(ledger, pick_up_name, ticket);
    Py_XDECREF(ledger);
    if (done == NULL || (now = read_clock(pool)) == NULL) {
        Py_XDECREF(done);
        return PYGEN_ERROR;
    }
    Py_DECREF(done);
    put(slot, SLOT_LEASED_AT, now);
    return end_with(self, slot, result);
}

/* Go on as somebody who was woken: by a connection, as most are, and no conversation is held for these. */
static PySendResult
wake_up(Checkout *self, PyObject **result)
{
    PyObject *pool = get(self->lease, LEASE_POOL), *ticket = self->ticket;
    PyObject *slot = Py_XNewRef(*field(ticket, TICKET_SLOT));
    PySendResult how = PYGEN_ERROR;
    self->ticket = NULL;
    if (is_a(pool, POOL) && is_a(slot, SLOT) && *field(slot, SLOT_STATE) == told[LEASED]) {
        how = pick_up(self, pool, ticket, slot, result);
    }
    else if (pool != NULL) {
        how = wait_for(self, PyObject_CallMethodObjArgs(pool, wait_on_name, ticket, Py_None, NULL));
        how = how == PYGEN_NEXT ? step(self, Py_None, result) : how;
    }
    Py_XDECREF(slot);
    Py_DECREF(ticket);
    Py_XDECREF(pool);
    return how;
}

/* Go on with what was brought by that which is waited for. */
static PySendResult
go_on(Checkout *self, PySendResult how, PyObject **result)
{
    if (how == PYGEN_NEXT || self->lease == NULL) {
        return how;
    }
    if (how == PYGEN_RETURN) {
        PyObject *brought = *result;
        *result = NULL;
        how = self->ticket != NULL ? wake_up(self, result) : end_with(self, brought, result);
        Py_DECREF(brought);
    }
    else if (self->ticket != NULL) {
        step_out(self);
    }
    if (how == PYGEN_ERROR) {
        (void)checkout_clear(self);
    }
    return how;
}

static PySendResult
step(Checkout *self, PyObject *value, PyObject **result)
{
    PySendResult how = self->inner == NULL ? begin(self, value, result) : PYGEN_NEXT;
    if (how == PYGEN_NEXT) {
        how = PyIter_Send(self->inner, value, result);
    }
    return go_on(self, how, result);
}

/* Say so if it is being executed: whoever is called from there may have it in hand as well. */
static int
is_running(Checkout *self)
{
    if (self->running) {
        PyErr_SetString(PyExc_ValueError, "checkout already executing");
    }
    return self->running;
}

static PySendResult
checkout_send(Checkout *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (is_running(self)) {
        return PYGEN_ERROR;
    }
    self->running = 1;
    PySendResult how = step(self, value, result);
    self->running = 0;
    return how;
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
    *result = PyObject_GetAttrString(stop, "value"); /* without memory this may be another exception by now */
    Py_XDECREF(type);
    Py_XDECREF(stop);
    Py_XDECREF(traceback);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
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
    if (is_running(self) || (self->inner == NULL && leave_to_python(self) == PYGEN_ERROR)) {
        return NULL;
    }
    self->running = 1;
    PyObject *method = PyObject_GetAttr(self->inner, throw_name), *result;
    PySendResult how = as_send(method == NULL ? NULL : PyObject_CallObject(method, arguments), &result);
    Py_XDECREF(method);
    how = go_on(self, how, &result);
    self->running = 0;
    return as_iterator(how, result);
}

static PyObject *
checkout_close(Checkout *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *exit = PyTuple_Pack(1, PyExc_GeneratorExit);
    PyObject *more = exit == NULL ? NULL : checkout_throw(self, exit);
    Py_XDECREF(exit);
    if (more != NULL) {
        Py_DECREF(more);
        PyErr_SetString(PyExc_RuntimeError, "checkout ignored GeneratorExit");
        return NULL;
    }
    if (!PyErr_ExceptionMatches(PyExc_GeneratorExit) && !PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return NULL;
    }
    PyErr_Clear();
    Py_RETURN_NONE;
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

/* ------------------------------------------------------------------ close() */

/* Is a slot given back at *at* as good as new? */
static enum answer
is_fine(PyObject *pool, PyObject *slot, double at)
{
    return at < seconds(*field(slot, SLOT_EXPIRES_AT)) ? is_denied(pool, POOL_UNCLEAN, slot) : NO;
}

/* Note of a use that it has ended. */
static int
note_use(PyObject *slot, double at)
{
    PyObject *number = get(slot, SLOT_USES);
    PyObject *uses = number == NULL ? NULL : PyNumber_Add(number, one);
    double held_s = at - seconds(*field(slot, SLOT_LEASED_AT)); /* first, as it is rounded in Python */
    PyObject *busy = uses == NULL ? NULL : PyFloat_FromDouble(seconds(*field(slot, SLOT_BUSY)) + held_s);
    Py_XDECREF(number);
    if (busy == NULL) {
        Py_XDECREF(uses);
        return -1;
    }
    put(slot, SLOT_USES, uses);
    put(slot, SLOT_BUSY, busy);
    return 0;
}

/* Lay a slot with which everything is fine on its shelf.  The caller holds it, and nobody else does. */
static PyObject *
shelve(PyObject *pool, PyObject *slot, PyObject *now)
{
    PyObject *until = PyFloat_FromDouble(seconds(now) + seconds(*field(pool, POOL_CHECK_AFTER)));
    PyObject *shelf = until == NULL ? NULL : get(pool, POOL_IDLE);
    if (shelf == NULL) {
        Py_XDECREF(until);
        return NULL;
    }
    put(slot, SLOT_RETURNED_AT, Py_NewRef(now));
    put(slot, SLOT_BEST_BEFORE, until);
    put(slot, SLOT_STATE, Py_NewRef(told[IDLE]));
    PyObject *done = of_shelf(APPEND, shelf, slot);
    Py_DECREF(shelf);
    return done;
}

/* Let the ledger give to whoever waits what comes back, and perform what it leaves in the outbox. */
static PyObject *
hand_over(PyObject *pool, PyObject *slot)
{
    PyObject *ledger = get(pool, POOL_LEDGER);
    PyObject *done = ledger == NULL ? NULL : PyObject_CallMethodOneArg(ledger, take_back_name, slot);
    Py_XDECREF(ledger);
    if (done != NULL) {
        Py_DECREF(done);
        done = PyObject_CallMethodNoArgs(pool, deliver_name);
    }
    return done;
}

/* Pass on, to whoever is next, a slot with which everything is fine. */
static PyObject *
pass_on(PyObject *pool, PyObject *lease, PyObject *slot, PyObject *now)
{
    int waited_for = !nobody_waits(pool);
    if (tracks_use(pool) && ((!waited_for && note_use(slot, seconds(now)) < 0) ||
                             note_place(lease, LEASE_CODE, LEASE_INSTRUCTION) < 0)) {
        return NULL;
    }
    PyObject *done = waited_for ? hand_over(pool, slot) : shelve(pool, slot, now);
    if (done == NULL) {
        return NULL;
    }
    Py_DECREF(done);
    return Py_NewRef(told[NOTHING]);
}

/* Take back what a lease holds. */
static PyObject *
take_back(PyObject *pool, PyObject *lease, PyObject *error_kind)
{
    PyObject *slot = *field(lease, LEASE_SLOT);
    if (slot == NULL) {
        return Py_NewRef(told[NOTHING]);
    }
    *field(lease, LEASE_SLOT) = NULL; /* from now on it is held here, and nowhere else */
    PyObject *now = read_clock(pool), *left = NULL;
    enum answer fine = now == NULL ? FAILED : error_kind != Py_None ? NO : is_fine(pool, slot, seconds(now));
    if (fine == YES) {
        left = pass_on(pool, lease, slot, now);
    }
    else if (fine == NO && note_place(lease, LEASE_CODE, LEASE_INSTRUCTION) == 0) {
        left = PyObject_CallMethodObjArgs(pool, give_back_name, slot, error_kind, NULL);
    }
    Py_XDECREF(now);
    Py_DECREF(slot);
    return left;
}

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

static PyObject *
lease_close(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *pool = *field(self, LEASE_POOL), *slot = *field(self, LEASE_SLOT);
    enum answer plain = names == NULL && (count == 0 || count == 3) && is_a(pool, POOL) &&
                        (slot == NULL || is_a(slot, SLOT)) ? is_on_loop(pool) : NO;
    if (plain != YES) {
        return plain == NO ? in_python(CLOSE, self, args, count, names) : NULL;
    }
    Py_INCREF(pool);
    PyObject *left = take_back(pool, self, count ? args[0] : Py_None);
    Py_DECREF(pool);
    return left;
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
    if (!PyDict_Check(names) || PyDict_GET_SIZE(names) != TOLD) { /* of an older or a newer source than this one */
        PyErr_Format(PyExc_TypeError, "it takes a dictionary of %d names", TOLD);
        return -1;
    }
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
    const char *form = words == Py_None ? "%s\n--\n\n" : "%s\n--\n\n%S"; /* without words: `python -OO` */
    PyObject *all = words == NULL ? NULL : PyUnicode_FromFormat(form, methods[which].signature, words);
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
    double quiet;
    if (look_up(names, found, where, &quiet) < 0) {
        return NULL;
    }
    if (told[POOL] != NULL) { /* the module that has the pool was imported anew: what it has now does with Python */
        Py_RETURN_FALSE;
    }
    quiet_s = quiet;
    memcpy(offsets, where, sizeof offsets);
    for (int each = 0; each < TOLD; each++) {
        told[each] = Py_NewRef(found[each]);
    }
    for (int each = 0; each < METHODS; each++) {
        if (document(each) < 0 || take_place(each) < 0) {
            return NULL;
        }
    }
    /* What `await` asks of a class is by now a function that looks `__await__` up; this is what it would find. */
    ((PyTypeObject *)told[ASKED])->tp_as_async->am_await = make_checkout;
    Py_RETURN_TRUE;
}

static PyMethodDef module_methods[] = {
    {"learn", learn, METH_O, "Learn what is named in a dictionary, and take the methods' places; say whether that was done."},
    {NULL},
};

static int
fill(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "it is for the main interpreter of a process");
        return -1;
    }
    if (is_taken) {
        PyErr_SetString(PyExc_ImportError, "this process has imported it before");
        return -1;
    }
    is_taken = 1;
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
