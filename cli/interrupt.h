/* Commands that look on while a machine works: Ctrl-C or SIGTERM does not call the work off, and
 * that is to be said. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

/* From now on the two end no process. */
void interrupt_watch(void);
/* The signal that has come since; 0: none. */
int interrupt_came(void);

#endif
