/*
 * error.c - the one place where an engine status becomes an SQLSTATE.
 */
#include "ruvector.h"

#include "miscadmin.h"

void
ruv_check(rv_status status, const rv_error *err, const char *what)
{
    int code;
    const char *message;

    if (status == RV_OK)
        return;

    message = (err && err->message[0]) ? err->message : rv_status_name(status);
    switch (status) {
        case RV_ERR_NOMEM:
            code = ERRCODE_OUT_OF_MEMORY;
            break;
        case RV_ERR_DIMENSION:
        case RV_ERR_FORMAT:
            code = ERRCODE_DATA_EXCEPTION;
            break;
        case RV_ERR_INVALID:
            code = ERRCODE_INVALID_PARAMETER_VALUE;
            break;
        case RV_ERR_RANGE:
            code = ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
            break;
        case RV_ERR_VERSION:
            code = ERRCODE_FEATURE_NOT_SUPPORTED;
            break;
        case RV_ERR_FULL:
            code = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
            break;
        case RV_ERR_NOTFOUND:
            code = ERRCODE_NO_DATA_FOUND;
            break;
        case RV_ERR_CANCELLED:
            /* The cancel hook saw a pending interrupt: serve it with its own message. */
            CHECK_FOR_INTERRUPTS();
            code = ERRCODE_QUERY_CANCELED;
            break;
        case RV_ERR_CORRUPT:
            code = ERRCODE_DATA_CORRUPTED;
            break;
        default:
            code = ERRCODE_INTERNAL_ERROR;
            break;
    }
    ereport(ERROR, (errcode(code), errmsg("%s: %s", what, message)));
}
