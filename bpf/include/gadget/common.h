/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/** What nearly every gadget wants: types, markers, the event buffer and the process behind an event. */
#ifndef GADGET_COMMON_H
#define GADGET_COMMON_H

#include <gadget/buffer.h>
#include <gadget/kernel.h>
#include <gadget/macros.h>
#include <gadget/process.h>
#include <gadget/types.h>

#endif
