export { BulkJobs as default } from ".";
